# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The benchmark scripts run and say what they measured; not how fast it was.

They run in this process, as importing JAX takes longer than a small run.
"""

import functools
import json
import pathlib
import runpy
import subprocess
import sys
import time

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(
  path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text()
)
TOY = ("--batch=32", "--d_model=8", "--latents=64", "--k=4", "--steps=1")
needs_linux = pytest.mark.skipif(
  not pathlib.Path("/proc/self/clear_refs").exists(), reason="needs Linux"
)


@pytest.fixture
def script(monkeypatch, capsys):
  """Runs a script with arguments; returns what it printed."""
  monkeypatch.syspath_prepend(FOLDER)

  def run(name, *arguments):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out

  return run


@pytest.fixture
def machine(monkeypatch):
  """The module; its peaks are measured on tiny arrays."""
  monkeypatch.syspath_prepend(FOLDER)
  import machine

  small = functools.partial(machine.measure_peaks, rounds=1, scale=0.01)
  monkeypatch.setattr(machine, "measure_peaks", small)
  return machine


def rows(printed):
  """Cells of the markdown table's rows, without those of its head."""
  lines = [line for line in printed.splitlines() if line.startswith("|")]
  return [
    [cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]
  ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_lists_the_options(script, capsys, name):
  with pytest.raises(SystemExit) as caught:
    script(name, "--help")
  assert caught.value.code == 0
  assert "--help" in capsys.readouterr().out


def test_ops_time_the_chosen_implementations(script, machine):
  printed = script(
    "ops",
    *("--specs", "small", "--op", "pair_sums", "sphere_adam"),
    *("--implementation", "cpu", "pallas_tpu", "--rounds", "2"),
  )
  assert printed.startswith("Machine: ")
  table = rows(printed)
  assert [row[:3] for row in table] == [
    ["pair_sums", "float32", "cpu"],
    ["sphere_adam", "float32", "cpu"],
  ]
  assert all(float(row[3].split()[0]) > 0 for row in table)
  assert (
    "pallas_tpu needs a tpu, this is a cpu (pair_sums, sphere_adam)" in printed
  )


def test_a_roofline_is_the_larger_of_arithmetic_and_memory(machine):
  peaks = machine.Peaks(bf16_flops=4e9, f32_flops=1e9, bytes=1e9)
  assert peaks.seconds(2e9, 1e9, "float32") == 2
  assert peaks.seconds(2e9, 1e9, "bfloat16") == 1


@pytest.mark.slow
def test_steps_are_compared_with_ours_and_the_product(script):
  table = rows(script("step", *TOY, "--ours_only", "--rounds=2"))
  names = [row[0] for row in table]
  assert names[0].startswith("sae_jax") and "sae-lens" in names
  assert table[0][-2] == "1.00"  # ours over ours
  assert table[names.index("encoder product alone, bfloat16")][-1] == "1.00"
  assert table[names.index("sae-lens")][2] == "–"


@pytest.fixture
def made_up(monkeypatch):
  """Steps that take 1 ms per row, and 4 ms more beyond 16 rows."""
  monkeypatch.syspath_prepend(FOLDER)
  import contenders

  clock = [0.0]

  def make(problem):
    ms = problem.batch + 4 * (problem.batch > 16)
    return lambda: clock.__setitem__(0, clock[0] + ms / 1000)

  monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
  monkeypatch.setattr(time, "sleep", lambda _: None)
  monkeypatch.setattr(
    contenders, "CONTENDERS", {contenders.OURS: make, contenders.PRODUCT: make}
  )


def test_a_sweep_compares_with_the_first_size_and_a_line(script, made_up):
  sizes = ("4", "8", "16", "32")
  table = rows(script("step", *TOY, "--rounds=2", "--sweep", "batch", *sizes))
  assert [row[0] for row in table] == list(sizes)
  assert [row[1].split()[0] for row in table] == ["4.0", "8.0", "16.0", "36.0"]
  assert [row[4] for row in table] == ["1.00", "1.00", "1.00", "1.12"]
  # Three points are on a line and the fourth is above it; so it is fitted.
  off = [float(row[5].rstrip("%")) for row in table]
  assert off[2] < 0 < off[3] < 12.5


@pytest.mark.parametrize("sweep", [("width", "1", "2"), ("batch", "1")])
def test_a_sweep_of_nothing_is_refused(script, capsys, sweep):
  with pytest.raises(SystemExit) as caught:
    script("step", "--sweep", *sweep)
  assert caught.value.code == 2
  assert f"--sweep {sweep[0]}" in capsys.readouterr().err


@needs_linux
def test_the_peak_of_memory_is_seen_after_it_is_free_again(machine):
  machine.forget_peak()
  before = machine.resident()
  np.ones(16 << 20).sum()  # 134 MB, gone after this line
  peak = machine.peak_resident() - before
  # The kernel counts pages per thread and is up to 64 of them late.
  assert 133 < peak < 200
  machine.forget_peak()
  assert machine.peak_resident() - before < 67


@needs_linux
@pytest.mark.slow
def test_memory_is_that_of_parameters_moments_and_temporaries():
  command = [sys.executable, FOLDER / "step.py", "--steps=1", "--batch=64"]
  command += ["--d_model=256", "--latents=32768", "--k=4"]
  command += ["--memory_of=sae_jax, bfloat16 products"]
  done = subprocess.run(command, check=True, capture_output=True, text=True)
  steps, start = json.loads(done.stdout.splitlines()[-1])
  # 16.8 M weights and their two moments are 201 MB, and so is what a step may
  # take: two gradients and the encoder in bfloat16 are 84 MB, [B, F] is 8 MB.
  assert 201 < steps < 402
  assert start > 201
