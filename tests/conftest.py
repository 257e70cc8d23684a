# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every test process has 8 virtual CPU devices and the strictest JAX."""

import os

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


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
