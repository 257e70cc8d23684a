# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every test process has 8 virtual CPU devices and the strictest JAX.

The fast subset (`-m "not slow"`) is compiled in the quickest way, the slow one
as users' programs are.
"""

import fcntl
import os
import pathlib
import signal
import subprocess
import sys

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
  # Shells start background jobs with SIGINT ignored, which children inherit;
  # tests send it to themselves and to processes that they start.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  if "not slow" in config.option.markexpr:
    # A fifth less processor time.
    jax.config.update("jax_disable_most_optimizations", True)
    # Of the processes that tests start.
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    if jax.__version_info__[:2] == (0, 10):
      # Two fifths less. JAX 0.12 has dropped it, and exits where it is set.
      flags = os.environ.get("XLA_FLAGS", "")
      os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false"


@pytest.hookimpl(trylast=True)  # after what is not selected has gone
def pytest_collection_modifyitems(items):
  # Of two workers each begins with one half of the tests and, once through, is
  # given the last ones of the other: so what takes minutes, on one core, comes
  # first in either half, and nobody waits for the organisms.
  organisms = [item for item in items if "personas_place" in item.fixturenames]
  advice = [item for item in items if "advice_place" in item.fixturenames]
  others = [item for item in items if item not in {*organisms, *advice}]
  middle = max(0, len(items) // 2 - len(organisms))
  items[:] = organisms + others[:middle] + advice + others[middle:]


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
def session_place(tmp_path_factory):
  """A directory that all processes that run tests share."""
  place = tmp_path_factory.getbasetemp()
  return place.parent if "PYTEST_XDIST_WORKER" in os.environ else place


@pytest.fixture(scope="session", autouse=True)
def programs(session_place, tmp_path_factory):
  """What has been compiled once is loaded.

  Processes that tests start share a place. Tests, where a torn entry's warning
  would be an error, have one of their own: a process that is killed while it
  writes leaves one, and none is whole before its writer is done.
  """
  place = str(session_place / "programs")
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", place)
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
  jax.config.update(
    "jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs"))
  )
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


@pytest.fixture(scope="session")
def forge(tmp_path_factory):
  """Starts processes of `sae-jax` that need not import what they run."""
  import forge as forge_lib

  made = forge_lib.Forge(tmp_path_factory.mktemp("forge"))
  yield made
  made.close()


@pytest.fixture(scope="session")
def personas_place(session_place):
  """Organisms 0 to 4, examined; once for all processes that run tests."""
  place = session_place / "personas"
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
