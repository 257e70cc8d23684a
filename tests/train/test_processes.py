# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Two real processes of four devices are one run on eight."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from sae_jax import metrics, store

HOOK = "blocks.0.hook_resid_post"
CONFIG = """
from sae_jax import mesh, sae, stream
from sae_jax.train import config

def get_config():
  return config.TrainConfig(
    store={store!r}, hook={hook!r}, sae=sae.SaeConfig(latents=64, k=4),
    stream=stream.StreamConfig(batch_size=64, mix_chunks=4, lanes=2),
    mesh=mesh.MeshConfig(data=2, latent=4), steps=20, held_out_rows=64,
    eval_every=10, checkpoint_every=10, log_every=1,
  )
"""


def start(directory, out, devices, **environment):
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "sae_jax", "train"),
      f"--config={directory}/config.py",
      f"--out={out}",
      *(["--distributed"] if environment else []),
    ],
    env=dict(
      os.environ,
      JAX_PLATFORMS="cpu",
      JAX_NUM_CPU_DEVICES=str(devices),
      **environment,
    ),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def free_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
  x_ND = np.random.default_rng(0).normal(size=(1024, 16)).astype(np.float32)
  store.write_arrays(
    str(tmp_path / "store"), {HOOK: x_ND}, read_rows=32, write_rows=64
  )
  (tmp_path / "config.py").write_text(
    CONFIG.format(store=str(tmp_path / "store"), hook=HOOK)
  )
  one = start(tmp_path, tmp_path / "one", 8)
  _, err = one.communicate(timeout=300)
  assert one.returncode == 0, err
  port = free_port()
  two = [
    start(
      tmp_path,
      tmp_path / "two",
      4,
      JAX_CPU_COLLECTIVES_IMPLEMENTATION="gloo",
      JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}",
      JAX_NUM_PROCESSES="2",
      JAX_PROCESS_ID=str(i),
    )
    for i in range(2)
  ]
  for process in two:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["steps"] == 20
  lines = [
    metrics.read(tmp_path / name / "metrics.jsonl") for name in ("one", "two")
  ]
  for a, b in zip(*lines, strict=True):
    assert a["step"] == b["step"] and a.keys() == b.keys()
    for name in a:
      if not name.startswith("perf/"):
        # The same sums in another order: sqrt(64 rows) eps per step.
        np.testing.assert_allclose(a[name], b[name], rtol=2e-5, atol=1e-7)
  weights = [
    safetensors.numpy.load_file(
      tmp_path / name / "sae" / "sae_weights.safetensors"
    )
    for name in ("one", "two")
  ]
  for name, array in weights[0].items():
    np.testing.assert_allclose(array, weights[1][name], rtol=1e-4, atol=1e-5)
