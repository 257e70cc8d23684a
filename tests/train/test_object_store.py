# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in a bucket outlive the machine that wrote them."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import fake_bucket
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import metrics, store

HOOK = "blocks.0.hook_resid_post"
CONFIG = """
from sae_jax import sae, stream
from sae_jax.train import config

def get_config():
  return config.TrainConfig(
    store={store!r}, hook={hook!r}, sae=sae.SaeConfig(latents=32, k=4),
    stream=stream.StreamConfig(batch_size=32, mix_chunks=4), steps=12,
    checkpoint_every=4, log_every=1, eval_every=4, checkpoints={place!r},
  )
"""
# A machine that vanishes in the step after its first checkpoint was begun.
VANISH = """
import os, sys
from sae_jax import __main__
from sae_jax.train import run
plain = run.Run.log
def log(self, step, scalars):
  plain(self, step, scalars)
  if step == 8:
    self._checkpoints.wait()
    os._exit(9)
run.Run.log = log
sys.exit(__main__.main())
"""

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None,
    reason="needs gcsfs: pip install 'sae-jax[gcs]'",
  ),
]


def _run(program, config, out, environment):
  return subprocess.run(
    [
      *(sys.executable, *program, "train"),
      f"--config={config}",
      f"--out={out}",
    ],
    env=dict(os.environ, JAX_PLATFORMS="cpu", **environment),
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def _result(out):
  lines = [
    {k: v for k, v in line.items() if not k.startswith("perf/")}
    for line in metrics.read(out / "metrics.jsonl")
  ]
  return lines, safetensors.numpy.load_file(
    out / "sae" / "sae_weights.safetensors"
  )


def test_a_run_goes_on_on_another_machine_from_the_bucket(tmp_path):
  x_ND = np.random.default_rng(0).normal(size=(512, 8)).astype(np.float32)
  store.write_arrays(
    tmp_path / "store", {HOOK: x_ND}, read_rows=32, write_rows=64
  )

  def config(place):
    file = tmp_path / f"{place.replace('/', '_') or 'local'}.py"
    file.write_text(
      CONFIG.format(store=str(tmp_path / "store"), hook=HOOK, place=place)
    )
    return file

  ours = ("-m", "sae_jax")
  done = _run(ours, config(""), tmp_path / "whole", {})
  assert done.returncode == 0, done.stderr
  with fake_bucket.serve() as (environment, objects):
    place = "gs://bucket/runs/1"
    done = _run(("-c", VANISH), config(place), tmp_path / "a", environment)
    assert done.returncode == 9, done.stderr
    assert not (tmp_path / "a" / "checkpoints").exists()
    steps = {pathlib.PurePath(name).parts[2] for name in objects}
    assert {"4", "8"} <= steps
    done = _run(ours, config(place), tmp_path / "b", environment)
    assert done.returncode == 0, done.stderr
    # Two are kept.
    steps = {pathlib.PurePath(name).parts[2] for name in objects}
    assert {"8", "12"} <= steps and "4" not in steps
  lines, weights = _result(tmp_path / "b")
  whole_lines, whole_weights = _result(tmp_path / "whole")
  assert lines == whole_lines[8:]
  for name, array in whole_weights.items():
    np.testing.assert_array_equal(weights[name], array)
