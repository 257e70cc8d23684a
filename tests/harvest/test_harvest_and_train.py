# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A bounded store: harvest and train as two processes, a window between."""

import json
import os
import signal
import threading
import time

import fake_harvest
import jax
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import mesh as mesh_lib
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


def line(directory):
  (directory / "config.py").write_text(
    CONFIG.format(store=str(directory / "store"), hook=HOOK, steps=STEPS)
  )
  config, out = f"--config={directory}/config.py", f"--out={directory}/run"
  return "train", config, out


def train(forge, directory):
  # Compiled as here: a program of other optimizations may round otherwise.
  env = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  return forge.start(*line(directory), env=env)


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


def start_harvest(forge, directory):
  harvest = fake_harvest.start(forge, directory / "store", **FIELDS)
  start = directory / "store" / "progress" / "start.json"
  wait_until(lambda: start.exists() or harvest.poll() is not None)
  return harvest


def go_on(forge, directory, command, capsys):
  """Harvests and trains to the end; returns the most chunks ever on disk."""
  harvest = start_harvest(forge, directory)
  done, most = threading.Event(), []

  def count():
    while not done.wait(0.01):
      most.append(chunks_on_disk(directory))

  counting = threading.Thread(target=count)
  counting.start()
  try:
    assert command(*line(directory)) == 0
  finally:
    done.set()
    counting.join()
  assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == STEPS
  assert harvest.wait() == 0, harvest.said
  return max(most)


def kill_both(forge, directory, at):
  """Both as processes, killed once `at` evaluations are logged."""
  harvest, most = start_harvest(forge, directory), 0
  trainer = train(forge, directory)
  while trainer.poll() is None and logged(directory) < at:
    most = max(most, chunks_on_disk(directory))
    time.sleep(0.01)
  harvest.kill()
  trainer.kill()
  assert trainer.wait() == -signal.SIGKILL
  return most


@pytest.mark.slow
def test_a_window_is_enough_and_a_kill_changes_nothing(
  forge, tmp_path, command, capsys, monkeypatch, quick_compilation
):
  """2,048 rows pass through a window of 512; both processes are killed."""
  # One device, as a process has that is not told how many.
  monkeypatch.setattr(mesh_lib, "_all_devices", lambda: jax.devices()[:1])
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  whole.mkdir()
  killed.mkdir()
  assert go_on(forge, whole, command, capsys) <= FIELDS["window"]
  assert kill_both(forge, killed, at=30) <= FIELDS["window"]
  assert go_on(forge, killed, command, capsys) <= FIELDS["window"]
  weights = [
    safetensors.numpy.load_file(
      place / "run" / "sae" / "sae_weights.safetensors"
    )
    for place in (whole, killed)
  ]
  for name, array in weights[0].items():
    np.testing.assert_array_equal(array, weights[1][name])


def test_settings_that_would_wait_for_ever_are_refused(
  forge, tmp_path, command, capsys
):
  harvest = start_harvest(forge, tmp_path)
  for override, expected in (
    ("--config.checkpoint_every=9", "wait for each other"),
    ("--config.steps=65", "bounded store"),
    ("--config.held_out_rows=64", "is bounded"),
  ):
    assert command(*line(tmp_path), override) == 2
    assert expected in capsys.readouterr().err
  harvest.kill()
