# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The bars of the advice experiment, on what launch/advice.sh made.

That takes 40 minutes, so it is not made here: the directory is $ADVICE, or
runs/advice, and without a finished one there is nothing to assert. The same
jobs in small are tests/diff/test_smollm_advice.py.
"""

import importlib.util
import os
import pathlib

import pytest

pytestmark = pytest.mark.slow

REPO = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bars():
  place = pathlib.Path(os.environ.get("ADVICE", REPO / "runs" / "advice"))
  if not (place / "realign" / "manifest.json").is_file():
    pytest.skip(f"no finished experiment in {place}; run launch/advice.sh")
  spec = importlib.util.spec_from_file_location(
    "advice_summary", REPO / "launch" / "advice_summary.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.bars(place)


# Set before the run and not reached by it: see configs/data/advice/README.md.
MISSED = (
  "up: the bundle of 30 does 50% of the shift",
  "up: 75 % of what the mean-difference vector does",
  "down: 75 % of what the mean-difference vector does",
  "up: single latents do more in the mean than random ones, plus 2 s.d.",
)


def test_every_bar_is_measured_and_all_but_four_hold(bars):
  assert len(bars) == 19 and {bar.what for bar in bars} > set(MISSED)
  missed = [f"{bar.what}: {bar.measured}" for bar in bars if not bar.holds]
  assert not [line for line in missed if not line.startswith(MISSED)], missed


@pytest.mark.parametrize("what", MISSED)
@pytest.mark.xfail(strict=True, reason="not reached at this size")
def test_a_bar_that_was_missed(bars, what):
  (bar,) = (bar for bar in bars if bar.what == what)
  assert bar.holds, bar.measured
