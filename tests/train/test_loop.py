# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A run that is killed anywhere and started again equals one that was not."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from sae_jax import metrics, store

STEPS = 60
CONFIG = """
from sae_jax import sae, stream
from sae_jax.train import config, optimizer

def get_config():
  return config.TrainConfig(
    store={store!r}, hook="blocks.0.hook_resid_post",
    sae=sae.SaeConfig(latents=64, k=4, dead_after_tokens=1000),
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=5),
    stream=stream.StreamConfig(batch_size=128, mix_chunks=4),
    steps={steps}, held_out_rows=256, eval_every=10, checkpoint_every=10,
    log_every=1,
  )
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
  directory = tmp_path_factory.mktemp("train")
  rng = np.random.default_rng(0)
  codes_NF = rng.exponential(size=(2048, 40)) * (rng.random((2048, 40)) < 0.1)
  x_ND = codes_NF @ rng.normal(size=(40, 16)) + rng.normal(size=16)
  path = str(directory / "store")
  store.write_arrays(
    path,
    {"blocks.0.hook_resid_post": x_ND.astype(np.float32)},
    read_rows=64,
    write_rows=256,
  )
  file = directory / "config.py"
  file.write_text(CONFIG.format(store=path, steps=STEPS))
  return file


def line(config_file, out):
  return "train", f"--config={config_file}", f"--out={out}"


def one_device():
  """The environment of processes, which unlike this one have one device."""
  return os.environ | {"JAX_NUM_CPU_DEVICES": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture(scope="module")
def start(forge, config_file):
  """Starts a run."""
  return lambda out: forge.start(*line(config_file, out), env=one_device())


def finish(process):
  stdout, stderr = process.communicate(timeout=300)
  return process.returncode, stdout, stderr


def trace(out):
  """Everything in the metrics file except the clock's readings."""
  return [
    {k: v for k, v in line.items() if not k.startswith("perf/")}
    for line in metrics.read(pathlib.Path(out) / "metrics.jsonl")
  ]


def weights(out):
  return safetensors.numpy.load_file(
    pathlib.Path(out) / "sae" / "sae_weights.safetensors"
  )


def assert_same_run(out, reference):
  assert trace(out) == trace(reference)
  ours, theirs = weights(out), weights(reference)
  assert ours.keys() == theirs.keys()
  for name in ours:
    np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.fixture(scope="module")
def reference(config_file):
  """A run by the command itself, which nothing interrupts."""
  out = config_file.parent / "reference"
  done = subprocess.run(
    [sys.executable, "-m", "sae_jax", *line(config_file, out)],
    env=one_device(),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout.splitlines()[-1])
  assert result["steps"] == STEPS
  return out


def wait_for_step(process, out, step):
  """Returns when `step` lines are written, or the process has ended."""
  path = pathlib.Path(out) / "metrics.jsonl"
  while process.poll() is None:
    if path.exists() and path.read_bytes().count(b"\n") >= step:
      return
    time.sleep(0.002)


def kill_and_resume(start, out, at_step):
  process = start(out)
  wait_for_step(process, out, at_step)
  process.kill()
  process.communicate()
  code, _, stderr = finish(start(out))
  assert code == 0, stderr


def test_the_run_learns_and_logs(reference):
  lines = metrics.read(reference / "metrics.jsonl")
  assert [line["step"] for line in lines] == list(range(STEPS + 1))
  first, last = lines[0], lines[STEPS - 1]
  assert last["train/fvu"] < 0.5 * first["train/fvu"]
  assert 0 < last["train/l0"] <= 4
  for name in ("perf/tokens_per_s", "perf/step_ms", "perf/stall_ms"):
    assert name in last
  assert "eval/fvu" in lines[0] and "eval/fvu" in lines[STEPS]


@pytest.mark.slow
def test_killed_and_resumed_is_bit_equal(start, reference, tmp_path):
  kill_and_resume(start, tmp_path / "run", 23)
  assert_same_run(tmp_path / "run", reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_ten_random_points_is_bit_equal(
  start, reference, tmp_path, seed
):
  """One run, from before the first step to after the last."""
  rng = random.Random(seed)
  out = tmp_path / "run"
  for at_step in sorted(rng.randrange(STEPS + 1) for _ in range(10)):
    process = start(out)
    wait_for_step(process, out, at_step)
    time.sleep(rng.random() * 0.05)
    process.kill()
    process.communicate()
  code, _, stderr = finish(start(out))
  assert code == 0, stderr
  assert_same_run(out, reference)


@pytest.mark.slow
def test_sigterm_saves_and_the_resumed_run_is_bit_equal(
  start, reference, tmp_path
):
  out = tmp_path / "run"
  process = start(out)
  wait_for_step(process, out, 17)
  process.send_signal(signal.SIGTERM)
  code, stdout, stderr = finish(process)
  assert code == 75 and not stdout
  assert "SIGTERM at step" in stderr and "run the same command" in stderr
  assert "Traceback" not in stderr
  code, _, stderr = finish(start(out))
  assert code == 0, stderr
  assert_same_run(out, reference)


def test_killed_between_the_last_save_and_the_export(
  start, reference, tmp_path
):
  shutil.copytree(reference, tmp_path / "run")
  shutil.rmtree(tmp_path / "run" / "sae")
  (tmp_path / "run" / "manifest.json").unlink()
  code, stdout, stderr = finish(start(tmp_path / "run"))
  assert code == 0, stderr
  assert json.loads(stdout)["train/loss"] == trace(reference)[-2]["train/loss"]
  assert_same_run(tmp_path / "run", reference)


def test_a_finished_run_is_left_alone(start, reference):
  before = {p: p.stat().st_mtime_ns for p in reference.rglob("*.json*")}
  code, stdout, stderr = finish(start(reference))
  assert code == 0 and "already trained" in stderr
  assert json.loads(stdout)["steps"] == STEPS
  assert before == {p: p.stat().st_mtime_ns for p in reference.rglob("*.json*")}


def test_a_second_run_and_a_changed_config_are_refused(
  start, config_file, tmp_path, command, capsys
):
  out = tmp_path / "run"
  argv = line(config_file, out)
  first = start(out)
  wait_for_step(first, out, 1)
  first.send_signal(signal.SIGSTOP)  # alive, but not about to finish
  assert command(*argv) == 2
  first.kill()
  first.communicate()
  assert f"pid {first.pid}" in capsys.readouterr().err
  assert command(*argv, "--config.sae.k=5") == 2
  assert "sae.k = 4, now it is 5" in capsys.readouterr().err
  assert command(*argv, "--config.optimizer.b1=0.5") == 2
  assert "optimizer.b1 = 0.9, now it is 0.5" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(
  config_file, tmp_path, command, capsys
):
  out = tmp_path / "run"
  rate = "--config.optimizer.learning_rate=1e38"
  assert command("train", f"--config={config_file}", f"--out={out}", rate) == 1
  stdout, stderr = capsys.readouterr()
  assert not stdout
  assert "train/loss is" in stderr and "at step" in stderr
  assert "Last good checkpoint" in stderr and "Traceback" not in stderr
  assert not (out / "manifest.json").exists()
