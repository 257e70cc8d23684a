# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""AUROC over runs: the definition, its intervals, and what is left out."""

import numpy as np
import pytest
from run_series import run
from scipy import stats

from sae_jax.monitor import auroc, config, separation

FEW = config.StatisticsConfig(resamples=300)


def sample(scores, groups=None):
  scores = tuple(np.atleast_1d(np.asarray(s, float)) for s in scores)
  return auroc.Sample(scores, tuple(groups or ["g"] * len(scores)))


def test_it_is_the_mann_whitney_statistic():
  rng = np.random.default_rng(0)
  positive, negative = rng.normal(1, 1, 12), rng.normal(0, 1, 9).round(1)
  positive = positive.round(1)  # ties
  found = auroc.estimate(sample(positive), sample(negative), FEW)
  expected = stats.mannwhitneyu(positive, negative).statistic / (12 * 9)
  assert found["mean"] == pytest.approx(expected)
  assert found["ci_low"] < expected < found["ci_high"]
  assert (found["positive"], found["negative"], found["n"]) == (12, 9, 21)


def test_a_long_run_weighs_no_more_than_a_short_one():
  positive = sample([[1.0] * 50, [-1.0]])
  assert auroc.estimate(positive, sample([0.0]), FEW)["mean"] == 0.5


def test_only_runs_of_the_same_group_are_compared_unless_asked():
  positive = sample([10.0, 110.0], ["a", "b"])
  negative = sample([0.0, 100.0], ["a", "b"])
  assert auroc.estimate(positive, negative, FEW)["mean"] == 1
  across = auroc.estimate(positive, negative, FEW, across=True)
  assert across["mean"] == 0.75  # 10 < 100
  assert auroc.estimate(sample([1.0], ["a"]), sample([0.0], ["b"]), FEW) is None
  # A group without pairs is no part of the figure.
  found = auroc.estimate(sample([1.0, 5.0], ["a", "c"]), negative, FEW)
  assert found["positive"] == 1 and found["negative"] == 1


def test_perfect_separation_of_few_runs_is_not_certain():
  few = auroc.estimate(sample([1, 1, 1]), sample([0, 0, 0]), FEW)
  many = auroc.estimate(sample([1] * 30), sample([0] * 30), FEW)
  assert few["mean"] == many["mean"] == few["ci_high"] == 1
  assert few["ci_low"] < 0.7 and 0.9 < many["ci_low"] < 1
  # Two groups are two, however many runs they have, for a third group.
  groups = ["a"] * 15 + ["b"] * 15
  across = auroc.estimate(
    sample([1] * 30, groups), sample([0] * 30, groups), FEW, across=True
  )
  assert across["ci_low"] < 0.6


@pytest.mark.parametrize("shift, size", [(0.0, 8), (1.0, 8), (2.5, 8)])
def test_the_interval_covers_the_true_value(shift, size):
  rng = np.random.default_rng(1)
  true = stats.norm.cdf(shift / np.sqrt(2))
  few = config.StatisticsConfig(resamples=100)
  inside = []
  for _ in range(200):
    positive = sample(rng.normal(shift, 1, size))
    negative = sample(rng.normal(0, 1, size))
    found = auroc.estimate(positive, negative, few)
    inside.append(found["ci_low"] <= true <= found["ci_high"])
  # 3 s.e. of a share of 200 below 95 %.
  assert np.mean(inside) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200)


def test_newcombes_interval_is_the_solution_of_its_equation():
  for mean, m, n in ((0.8, 10, 20), (1.0, 5, 5), (0.0, 4, 9), (0.5, 3, 3)):
    low, high = auroc.newcombe(mean, m, n, 0.95)
    for edge in (low, high):
      extra = (m + n) / 2 - 1
      bracket = 1 + extra * (1 - edge) / (2 - edge) + extra * edge / (1 + edge)
      variance = edge * (1 - edge) * bracket / (m * n)
      if 0 < edge < 1:
        assert (edge - mean) ** 2 == pytest.approx(1.959964**2 * variance)
    assert 0 <= low <= mean <= high <= 1


def test_more_groups_make_a_claim_about_another_group_surer():
  rng = np.random.default_rng(2)

  def width(groups):
    names = [f"g{i}" for i in range(groups) for _ in range(4)]
    positive = sample(rng.normal(1.5, 1, len(names)), names)
    negative = sample(rng.normal(0, 1, len(names)), names)
    found = auroc.estimate(positive, negative, FEW, across=True)
    return found["ci_high"] - found["ci_low"]

  assert width(12) < width(3)


def test_samples_have_delongs_variance():
  rng = np.random.default_rng(4)
  positive, negative = (
    rng.normal(1, 1, 15).round(1),
    rng.normal(0, 2, 9).round(1),
  )
  won_PN = (np.sign(np.subtract.outer(positive, negative)) + 1) / 2
  found = auroc.of_samples(positive, negative, 0.95)
  assert found["mean"] == pytest.approx(won_PN.mean())
  variance = won_PN.mean(1).var(ddof=1) / 15 + won_PN.mean(0).var(ddof=1) / 9
  assert found["se"] == pytest.approx(np.sqrt(variance))
  assert found["ci_low"] < found["mean"] < found["ci_high"]
  assert auroc.of_samples(positive, np.zeros(0), 0.95) is None
  one = auroc.of_samples(np.ones(1), np.zeros(5), 0.95)
  assert one["mean"] == 1 and one["ci_low"] < 0.5


def test_exact_intervals_of_shares():
  low, high = auroc.proportion(0, 20, 0.95)
  assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 20))
  low, high = auroc.proportion(20, 20, 0.95)
  assert high == 1 and low == pytest.approx(0.025 ** (1 / 20))
  expected = stats.binomtest(7, 20).proportion_ci(0.95)
  assert auroc.proportion(7, 20, 0.95) == pytest.approx(tuple(expected))
  assert auroc.proportion(0, 0, 0.95) == (None, None)


def test_the_curve_has_the_area_of_the_estimate():
  rng = np.random.default_rng(3)
  positive = rng.normal(1, 1, 40).round(1)
  negative = rng.normal(0, 1, 30).round(1)
  points = np.array(auroc.curve(positive, negative))
  assert points[0].tolist() == [0, 0] and points[-1].tolist() == [1, 1]
  found = auroc.estimate(sample([positive]), sample([negative]), FEW)
  assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(
    found["mean"]
  )
  assert auroc.curve(np.zeros(0), negative) == []


def test_what_counts_as_positive_negative_and_early():
  bad = run("bad", [1, 2, 3], role="suspect", shows=[0, 1, 0])
  assert separation.showing(bad).tolist() == [False, False, True, False]
  assert separation.before(bad).tolist() == [False, True, False, False]
  good = run("good", [1, 2], shows=[0, 1])
  assert separation.harmless(good).tolist() == [False, True, False]
  assert not separation.showing(good).any()  # a contradiction counts nowhere
  assert not separation.before(good).any()


def test_a_held_out_groups_scale_comes_from_the_others():
  runs = [
    run("b1", [10.0, 12.0], group="a"),
    run("b2", [0.0, 4.0], group="b"),
    run("bad", [14.0], role="suspect", shows=[True], group="a"),
  ]
  found = separation.sample(runs, "s", separation.showing, standard=True)
  assert found.scores_N[0].tolist() == [(14 - 2) / 2]  # mean 2, sd 2 of b2
  found = separation.sample(runs, "s", separation.harmless, standard=True)
  assert found.scores_N[1].tolist() == [-11, -7]  # mean 11, sd 1 of b1
  alone = separation.statistics(runs[:1] + runs[2:], "s", FEW)
  assert alone["auroc_group_out"] is None
  assert alone["auroc_run_out"]["mean"] == 1


def test_a_signal_that_rises_first_is_early():
  runs = [run(f"b{i}", np.linspace(0, 0.1, 4)) for i in range(4)]
  runs += [
    run(f"s{i}", [1, 2, 3, 4], role="suspect", shows=[0, 0, 0, 1])
    for i in range(4)
  ]
  found = separation.statistics(runs, "s", FEW)
  assert found["auroc_early"]["mean"] == 1
  assert found["auroc_early"]["samples"] == 4 * 3 + 4 * 4
  assert found["roc"][-1] == [1.0, 1.0]
