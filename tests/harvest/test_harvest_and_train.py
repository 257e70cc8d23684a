# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A bounded store: harvest and train as two processes, a window between."""

import json
import os
import subprocess
import sys
import time

import fake_harvest
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import metrics

HOOK = "blocks.0.hook_resid_post"
FIELDS = {"rows": 2048, "write_rows": 64, "window": 8}
STEPS = 64  # of 32 rows: all rows that pass by
CONFIG = """
from sae_jax import sae, stream
from sae_jax.train import config

def get_config():
  return config.TrainConfig(
    store={store!r}, hook={hook!r}, sae=sae.SaeConfig(latents=32, k=2),
    stream=stream.StreamConfig(batch_size=32, mix_chunks=4), steps={steps},
    eval_every=1, log_every=1, checkpoint_every=4,
  )
"""


@pytest.fixture(scope="module")
def forge():
  made = fake_harvest.Forge()
  yield made
  made.close()


def line(directory):
  (directory / "config.py").write_text(
    CONFIG.format(store=str(directory / "store"), hook=HOOK, steps=STEPS)
  )
  config, out = f"--config={directory}/config.py", f"--out={directory}/run"
  return "train", config, out


def train(directory):
  return subprocess.Popen(
    [sys.executable, "-m", "sae_jax", *line(directory)],
    env=dict(os.environ, JAX_PLATFORMS="cpu"),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_until(condition, seconds=90.0):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def logged(directory):
  return len(metrics.read(directory / "run" / "metrics.jsonl"))


def chunks_on_disk(directory):
  found = directory.glob(f"store/activations/{HOOK}/c/*/0")
  return len(list(found))


def run_both(forge, directory, kill_at=None):
  """Harvests and trains side by side; returns the most chunks ever on disk."""
  directory.mkdir()
  harvest = forge.start(directory / "store", **FIELDS)
  start = directory / "store" / "progress" / "start.json"
  wait_until(lambda: start.exists() or harvest.code is not None)
  trainer, most = train(directory), 0
  while trainer.poll() is None:
    most = max(most, chunks_on_disk(directory))
    if kill_at is not None and logged(directory) >= kill_at:
      harvest.kill()
      trainer.kill()
      trainer.communicate()
      harvest = forge.start(directory / "store", **FIELDS)
      trainer, kill_at = train(directory), None
    time.sleep(0.01)
  out, err = trainer.communicate()
  assert trainer.returncode == 0, err
  assert json.loads(out)["steps"] == STEPS
  assert harvest.wait() == 0, harvest.stderr
  return most


@pytest.mark.slow
def test_a_window_is_enough_and_a_kill_changes_nothing(forge, tmp_path):
  """2,048 rows pass through a window of 512; both processes are killed."""
  assert run_both(forge, tmp_path / "whole") <= FIELDS["window"]
  assert run_both(forge, tmp_path / "killed", kill_at=30) <= FIELDS["window"]
  weights = [
    safetensors.numpy.load_file(
      tmp_path / name / "run" / "sae" / "sae_weights.safetensors"
    )
    for name in ("whole", "killed")
  ]
  for name, array in weights[0].items():
    np.testing.assert_array_equal(array, weights[1][name])


def test_settings_that_would_wait_for_ever_are_refused(
  forge, tmp_path, command, capsys
):
  harvest = forge.start(tmp_path / "store", **FIELDS)
  start = tmp_path / "store" / "progress" / "start.json"
  wait_until(lambda: start.exists() or harvest.code is not None)
  for override, expected in (
    ("--config.checkpoint_every=9", "wait for each other"),
    ("--config.steps=65", "bounded store"),
    ("--config.held_out_rows=64", "is bounded"),
  ):
    assert command(*line(tmp_path), override) == 2
    assert expected in capsys.readouterr().err
  harvest.kill()
