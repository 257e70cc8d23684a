# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Multi-process start-up and the device mesh `(sae, data, latent)`.

Library code takes a mesh; only jobs and tests build one, and only here.
"""

import dataclasses
import os
from collections.abc import Sequence

import jax
import numpy as np

from sae_jax import errors

AXES = ("sae", "data", "latent")

# Dense bfloat16 FLOP/s by the start of the device's kind; vendors' figures.
_PEAK_FLOPS = {
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5": 459e12,
  "TPU v6 lite": 918e12,
  "NVIDIA A100": 312e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200": 989e12,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """How many devices each axis gets; the product is the device count."""

  sae: int = 1  # stacked SAEs
  data: int = 1  # rows of a batch; sequences of a language model
  latent: int = -1  # latents; heads and MLP width of a language model. -1: rest

  def __post_init__(self):
    sizes = dataclasses.asdict(self)
    for axis, size in sizes.items():
      if size < 1 and size != -1:
        raise errors.InputError(
          f"mesh.{axis}={size}: give a number of devices >= 1, or -1 for the"
          " devices that are left"
        )
    if sum(size == -1 for size in sizes.values()) > 1:
      raise errors.InputError(
        f"mesh {sizes}: at most one axis can be -1 (the devices left)"
      )


def join_processes() -> None:
  """Joins the other processes of this job; call it before anything else.

  JAX finds coordinator and rank by itself on Cloud TPU, Slurm, Open MPI and
  Kubernetes; elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
  JAX_PROCESS_ID say them.

  Raises:
    errors.InputError: none of these describes a job of several processes.
  """
  try:
    jax.distributed.initialize(
      num_processes=_from_environment("JAX_NUM_PROCESSES"),
      process_id=_from_environment("JAX_PROCESS_ID"),
    )
  except ValueError as error:
    raise errors.InputError(
      f"--distributed: {error} Start the job under Slurm, Open MPI, Kubernetes"
      " or on a TPU slice, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"
      " and JAX_PROCESS_ID"
    ) from error


def refuse_processes(job: str) -> None:
  """Of a job that is not made for several processes.

  Raises:
    errors.InputError: this is one of several.
  """
  if jax.process_count() > 1:
    raise errors.InputError(
      f"sae-jax {job} runs in one process, on all devices of its host; start it"
      " without --distributed"
    )


def _from_environment(name: str) -> int | None:
  text = os.environ.get(name)
  return None if text is None else int(text)


def make(
  config: MeshConfig, devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """Builds the mesh over `devices` (default: every device of every process).

  Raises:
    errors.InputError: the sizes do not multiply to the device count.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = [config.sae, config.data, config.latent]
  if -1 in sizes:
    known = -int(np.prod(sizes))
    if len(devices) % known:
      raise errors.InputError(
        f"mesh {dataclasses.asdict(config)}: {len(devices)} devices are not a"
        f" multiple of {known}"
      )
    sizes[sizes.index(-1)] = len(devices) // known
  if int(np.prod(sizes)) != len(devices):
    raise errors.InputError(
      f"mesh {dict(zip(AXES, sizes, strict=True))} needs"
      f" {int(np.prod(sizes))} devices, but there are {len(devices)}; set one"
      " axis to -1 to use them all"
    )
  return jax.make_mesh(
    tuple(sizes),
    AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * 3,
    devices=devices,
  )


def peak_flops(device_kind: str) -> float | None:
  """Dense bfloat16 FLOP/s of one such device; None if it is not known."""
  known = [kind for kind in _PEAK_FLOPS if device_kind.startswith(kind)]
  return _PEAK_FLOPS[max(known, key=len)] if known else None


def single() -> jax.sharding.Mesh:
  """The 1 x 1 x 1 mesh on this process's first device."""
  return make(MeshConfig(latent=1), jax.local_devices()[:1])
