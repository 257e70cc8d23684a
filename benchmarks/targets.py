# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Accelerators that this machine does not have, as meshes to compile for.

libtpu compiles for any TPU topology and jax's CUDA plugin for a described GPU.
Import this before jax starts: both read the environment when they load.
"""

import fcntl
import importlib.util
import os
import pathlib
import tempfile

# Without these libtpu asks a cloud metadata server what it runs on.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from jax.experimental import topologies

from sae_jax import mesh as mesh_lib

_LOCK = pathlib.Path(tempfile.gettempdir()) / "libtpu_lockfile"


def missing(platform: str) -> str | None:
  """Why nothing can be compiled for `platform`; None if it can."""
  if platform == "tpu":
    if importlib.util.find_spec("libtpu") is None:
      return "libtpu is not installed: pip install 'sae-jax[aot-tpu]'"
    return None
  if importlib.util.find_spec("jax_cuda12_plugin") is None:
    return "jax-cuda12-plugin is not installed: pip install 'sae-jax[aot-gpu]'"
  return None


def wait_for_libtpu() -> int:
  """Waits until no other process uses libtpu, then keeps them out.

  One process at a time may load libtpu; a second one is refused by a lock on a
  file, which is never to be deleted. The lock belongs to the process, so
  libtpu, which takes it again, finds it free, and it ends with the process.

  Returns:
    The open file. Closing any descriptor of it gives the lock back.
  """
  lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o666)
  fcntl.lockf(lock, fcntl.LOCK_EX)
  return lock


def devices(platform: str, topology: str) -> topologies.TopologyDescription:
  """The devices of `v5e:4x4` (tpu) or of so many GPUs of one node, `8` (cuda).

  TPU topologies that libtpu does not know raise its error, which lists them.
  """
  if platform == "tpu":
    wait_for_libtpu()
    return topologies.get_topology_desc(platform="tpu", topology_name=topology)
  target = pathlib.Path(__file__).parent / "h100_target.txtpb"
  return topologies.get_topology_desc(
    platform="cuda",
    topology_name="h100",
    target_config=target.read_text(),
    topology=f"1x1x{topology}",
  )


def mesh(
  described: topologies.TopologyDescription, data: int, latent: int
) -> jax.sharding.Mesh:
  """The mesh that a job makes of 1 x data x latent described devices."""
  config = mesh_lib.MeshConfig(data=data, latent=latent)
  # One device of a topology that has several, or all.
  count = 1 if data * latent == 1 else len(described.devices)
  return mesh_lib.make(config, described.devices[:count])
