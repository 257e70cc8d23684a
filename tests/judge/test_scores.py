# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Intervals hold what they promise, and say nothing where nothing is known."""

import json
import math

import numpy as np
import pytest
import scipy.stats

from sae_jax import errors
from sae_jax.judge import rates, scores

CONFIDENCE = 0.95


def covered(rows, truth, units=None):
  found = scores.score_rows(rows, units)
  return np.mean([s.ci_low <= truth <= s.ci_high for s in found])


def tolerance(reps, p=CONFIDENCE):
  """Three standard errors of a share that is p."""
  return 3 * math.sqrt(p * (1 - p) / reps)


def test_mean_and_error_are_those_of_unit_means():
  rng = np.random.default_rng(0)
  values_G3 = rng.normal(size=(12, 3))
  found = scores.score(values_G3.ravel(), np.repeat(np.arange(12), 3))
  mean_G = values_G3.mean(1)
  assert found.mean == pytest.approx(mean_G.mean())
  assert found.se == pytest.approx(scipy.stats.sem(mean_G))
  assert (found.n, found.samples) == (12, 36)
  low, high = scipy.stats.t.interval(
    CONFIDENCE, 11, loc=found.mean, scale=found.se
  )
  assert found.ci_low <= low + 1e-12 and high - 1e-12 <= found.ci_high


def test_units_with_more_values_count_more():
  found = scores.score([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
  assert found.mean == pytest.approx(0.75)
  # Cochran 1977 §6.4 for Σz = (3, 0), Σn = (3, 1).
  residual_2 = np.array([3 - 0.75 * 3, 0 - 0.75 * 1])
  assert found.se == pytest.approx(np.sqrt(2 * (residual_2**2).sum()) / 4)


def test_the_interval_is_the_hull_of_student_and_bootstrap_t():
  rng = np.random.default_rng(12)
  n_G = rng.integers(1, 9, 12)
  units = np.repeat(np.arange(12), n_G)
  values = rng.exponential(size=len(units)) + rng.exponential(size=12)[units]
  found = scores.score(values, units)
  z_G = np.bincount(units, values)
  weight_RG = scores._weights(12, 2000, 0).astype(float)
  mean = z_G.sum() / n_G.sum()

  def error(mean_R, w_RG):
    squares_R = (w_RG * (z_G - np.outer(mean_R, n_G)) ** 2).sum(1)
    return np.sqrt(12 / 11 * squares_R) / (w_RG @ n_G)

  (se,) = error(np.array([mean]), np.ones((1, 12)))
  mean_R = weight_RG @ z_G / (weight_RG @ n_G)
  t_R = np.sort((mean_R - mean) / error(mean_R, weight_RG))
  edge = scipy.stats.t.ppf(0.975, 11)
  assert edge < -t_R[49] < 3 * edge  # 2.5 % of 2001; longer than Student's
  # Resamples are float32, see above.
  assert found.ci_high == pytest.approx(mean - t_R[49] * se, rel=1e-4)
  assert found.ci_low == pytest.approx(
    mean - max(t_R[-50], edge) * se, rel=1e-4
  )


def test_units_may_stand_in_any_order():
  values = np.random.default_rng(1).normal(size=24)
  units = np.repeat(np.arange(8), 3)
  order = np.random.default_rng(2).permutation(24)
  found = scores.score(values, units)
  mixed = scores.score(values[order], units[order])
  assert mixed.mean == pytest.approx(found.mean)
  assert mixed.se == pytest.approx(found.se)


def test_many_rows_are_as_one_by_one(monkeypatch):
  rows = np.random.default_rng(3).lognormal(size=(7, 10))
  units = [0, 0, 1, 1, 2, 2, 3, 3, 4, 5]
  monkeypatch.setattr(scores, "_ROWS", 3)
  for row, found in zip(rows, scores.score_rows(rows, units), strict=True):
    alone = scores.score(row, units)
    # Resamples are float32: 2^-23 of a mean of ~1, over some 10 operations.
    assert _numbers(alone) == pytest.approx(_numbers(found), rel=2e-6)


def _numbers(score):
  return [score.mean, score.ci_low, score.ci_high, score.se, score.n]


def test_the_scale_does_not_matter():
  values = np.random.default_rng(4).normal(1, 1, 20)
  one, tiny = scores.score(values), scores.score(values * 1e-30)
  assert tiny.ci_low == pytest.approx(one.ci_low * 1e-30, rel=1e-5)
  assert tiny.ci_high == pytest.approx(one.ci_high * 1e-30, rel=1e-5)


@pytest.mark.parametrize("units", (3, 5, 12, 60))
def test_intervals_cover_the_mean_of_normal_values(units):
  reps = 1500
  rows = np.random.default_rng(units).normal(size=(reps, units))
  share = covered(rows, 0.0)
  assert share >= CONFIDENCE - tolerance(reps)
  # The hull is wider, but not so that it says nothing.
  assert share <= 0.985


def test_intervals_cover_the_mean_of_skewed_values():
  reps, units = 1500, 24
  rows = np.random.default_rng(5).exponential(size=(reps, units))
  share = covered(rows, 1.0)
  assert share >= CONFIDENCE - tolerance(reps)
  mean_R, error_R = rows.mean(1), scipy.stats.sem(rows, axis=1)
  student = np.abs(mean_R - 1) <= error_R * scipy.stats.t.ppf(0.975, units - 1)
  assert student.mean() < share  # what the hull is for


def test_few_skewed_units_do_not_stretch_an_interval_without_end():
  rows = np.random.default_rng(11).lognormal(0, 2, (300, 6))
  for found in scores.score_rows(rows):
    student = found.se * scipy.stats.t.ppf(0.975, 5)
    assert found.ci_high - found.mean <= 3 * student * (1 + 1e-6)
    assert found.mean - found.ci_low <= 3 * student * (1 + 1e-6)


def test_samples_of_one_prompt_are_not_independent():
  """An interval that ignores the prompts misses the mean far too often."""
  reps, groups, each = 1000, 20, 6
  rng = np.random.default_rng(6)
  own = rng.normal(size=(reps, groups, 1))
  rows = (own + rng.normal(size=(reps, groups, each))).reshape(reps, -1)
  units = np.repeat(np.arange(groups), each)
  assert covered(rows, 0.0, units) >= CONFIDENCE - tolerance(reps)
  assert covered(rows, 0.0) < 0.8


def sampled(rng, p, groups, each):
  """Hits whose rate varies from prompt to prompt, Beta(p, 1 − p)."""
  own = rng.beta(p, 1 - p, (groups, 1))
  return (rng.random((groups, each)) < own).ravel()


@pytest.mark.parametrize("p", (0.01, 0.1, 0.5, 0.95))
def test_rates_cover_also_near_0_and_1(p):
  reps, groups, each = 400, 20, 4
  rng = np.random.default_rng(7)
  units = np.repeat(np.arange(groups), each)
  found = [
    rates.rate(sampled(rng, p, groups, each), units) for _ in range(reps)
  ]
  share = np.mean([s.ci_low <= p <= s.ci_high for s in found])
  assert share >= CONFIDENCE - tolerance(reps)
  assert all(0 <= s.ci_low <= s.mean <= s.ci_high <= 1 for s in found)


@pytest.mark.parametrize(("p", "q"), ((0.05, 0.05), (0.4, 0.1)))
def test_differences_of_rates_cover(p, q):
  reps, groups, each = 300, 20, 4
  rng = np.random.default_rng(8)
  units = np.repeat(np.arange(groups), each)
  inside = []
  for _ in range(reps):
    # The same prompts are the more prone ones under both conditions.
    prone = rng.uniform(0.2, 1.8, (groups, 1))
    a, b = (
      (rng.random((groups, each)) < prone * rate).ravel() for rate in (p, q)
    )
    found = rates.rate_difference(a, units, b, units)
    inside.append(found.ci_low <= p - q <= found.ci_high)
  assert np.mean(inside) >= CONFIDENCE - tolerance(reps)


def test_a_rate_of_independent_samples_is_clopper_and_pearsons():
  """Where units agree no more than by chance, each sample is one."""
  hits = [1, 0, 0, 1] * 5 + [1, 0, 1, 0] * 5  # 2 of 4 in every unit
  found = rates.rate(hits, np.repeat(np.arange(10), 4))
  exact = scipy.stats.binomtest(20, 40).proportion_ci(method="exact")
  assert (found.ci_low, found.ci_high) == pytest.approx(tuple(exact))


def test_none_of_many_is_not_never():
  units = np.repeat(np.arange(20), 5)
  found = rates.rate(np.zeros(100), units)
  exact = scipy.stats.binomtest(0, 20).proportion_ci(method="exact")
  assert (found.mean, found.ci_low) == (0, 0)
  assert found.ci_high == pytest.approx(exact.high)  # 20 prompts, not 100
  both = rates.rate_difference(np.zeros(100), units, np.zeros(100), units)
  assert both.ci_low < 0 < both.ci_high


def test_rates_may_have_answers_left_out():
  a, b = [1, 1, 0], [0, 0, 1, 0, 0]
  found = rates.rate_difference(a, list("xyz"), b, list("xxyyz"))
  assert found.mean == pytest.approx(2 / 3 - 1 / 5)
  assert (found.n, found.samples) == (3, 8)


def test_pairs_are_compared_within_prompts():
  rng = np.random.default_rng(9)
  prompt = rng.normal(0, 10, 30)
  a, b = prompt + 0.5 + rng.normal(0, 0.1, 30), prompt
  found = scores.difference(a, b)
  assert found.excludes_zero and found.mean == pytest.approx((a - b).mean())
  assert not scores.score(a).excludes_zero
  with pytest.raises(errors.InputError, match="30 and 29 values are not"):
    scores.difference(a, b[:-1])


def test_what_says_nothing_says_nothing():
  one = scores.score([3.0, 4.0], ["p", "p"], seeds=(1, 2))
  assert (one.mean, one.n, one.samples) == (3.5, 1, 2)
  assert math.isnan(one.ci_low) and math.isnan(one.se)
  assert not one.excludes_zero
  assert math.isnan(rates.rate([1, 1], ["p", "p"]).ci_high)
  none = scores.score([])
  assert math.isnan(none.mean) and none.n == 0
  assert math.isnan(rates.rate([]).mean)
  text = json.dumps([one.json(), none.json()], allow_nan=False)
  assert json.loads(text)[0] == {
    "mean": 3.5,
    "ci_low": None,
    "ci_high": None,
    "se": None,
    "n": 1,
    "samples": 2,
    "seeds": [1, 2],
    "confidence": 0.95,
  }
  same = scores.score([0.25] * 9)
  assert (same.ci_low, same.mean, same.ci_high, same.se) == (
    0.25,
    0.25,
    0.25,
    0,
  )


def test_a_score_is_the_same_every_time():
  values = np.random.default_rng(10).normal(size=15)
  assert scores.score(values) == scores.score(values)
  other = scores.score(values, seed=1)
  assert other.ci_low != scores.score(values).ci_low or (
    other.ci_high != scores.score(values).ci_high
  )
  narrow = scores.score(values, confidence=0.5)
  assert narrow.ci_high < scores.score(values).ci_high


def test_mistakes_are_named():
  with pytest.raises(errors.InputError, match="NaN or infinite"):
    scores.score([1.0, np.nan])
  with pytest.raises(errors.InputError, match="2 values of 1 units"):
    scores.score([1.0, 2.0], ["a"])
  with pytest.raises(errors.InputError, match="hits, 0 or 1"):
    rates.rate([0.5])
  with pytest.raises(errors.InputError, match=r"confidence=1\.5"):
    scores.score([1.0], confidence=1.5)
  with pytest.raises(errors.InputError, match="resamples=10"):
    scores.score([1.0], resamples=10)
