# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every test process has 8 virtual CPU devices and the strictest JAX.

The fast subset (`-m "not slow"`) is compiled without most of XLA's
optimisations, which takes a fifth off its time; the whole suite with them.
"""

import fcntl
import os
import pathlib
import subprocess
import sys

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
  if "not slow" in config.option.markexpr:
    jax.config.update("jax_disable_most_optimizations", True)
    # Of the processes that tests start.
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"


@pytest.fixture(scope="module")
def quick_compilation():
  """Halves XLA's compile time, where that is most of what tests take."""
  before = jax.config.read("jax_disable_most_optimizations")
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def command():
  """Runs a `sae-jax` command line in this process; returns the exit code."""
  from absl.testing import flagsaver

  from sae_jax import __main__
  from sae_jax.train import loop  # grain defines flags when it is imported

  assert loop

  def call(*argv):
    with flagsaver.flagsaver():
      return __main__.run(["sae-jax", *map(str, argv)])

  return call


@pytest.fixture(scope="session")
def personas_place(tmp_path_factory):
  """Organisms 0 to 4, examined; once for all processes that run tests."""
  place = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    place = place.parent
  place /= "personas"
  place.mkdir(exist_ok=True)
  script = pathlib.Path(__file__).parent / "diff" / "make_personas.py"
  with open(place / "lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    subprocess.run(
      [sys.executable, script, place, *map(str, range(5))],
      check=True,
      capture_output=True,
      text=True,
    )
  return place
