# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The detector's figures are not flattered by what was chosen on its models."""

import numpy as np
import pytest
from run_series import run

from sae_jax.monitor import config, detector, dose

STATISTICS = config.StatisticsConfig(resamples=300, shuffles=100)
NAMES = [f"latent {i}" for i in range(30)]


def monitor_config(rate=0.1):
  group = config.GroupConfig(
    name="g",
    base="b",
    diff="d",
    prompts=config.judge_config.PromptsConfig(path="p"),
    runs=(config.RunConfig(name="r", models=("m",)),),
  )
  return config.MonitorConfig(
    groups=(group,), statistics=STATISTICS, false_alarm_rate=rate
  )


def models(rng, positives, negatives, *, group="g", effect=0.0, at=3):
  """One model per run; latent `at` is larger in those that show it."""
  runs = []
  for i in range(positives + negatives):
    shows = i < positives
    values = {name: rng.normal(size=1) for name in NAMES}
    values[NAMES[at]] += effect * shows
    values["latents"] = np.array([np.mean([v[0] for v in values.values()])])
    runs.append(
      run(
        f"m{i}",
        values,
        role="suspect" if shows else "benign",
        shows=[shows],
        group=group,
      )
    )
  return runs


def row(found, signal):
  return next(r for r in found["rows"] if r["signal"] == signal)


def test_random_labels_flatter_the_choice_in_sample_and_not_held_out():
  rng = np.random.default_rng(0)
  inside, outside = [], []
  for _ in range(120):
    choice = detector.Choice.of(models(rng, 8, 8), {"g": NAMES})
    inside.append(choice.in_sample())
    wins_PN, _, _ = choice.held_out()
    outside.append(wins_PN.mean())
  # The best of 30 latents that mean nothing separates 16 models well.
  assert np.mean(inside) > 0.75
  # Leave-pair-out is unbiased: 4 s.e. of the mean of these 120.
  assert abs(np.mean(outside) - 0.5) < 4 * np.std(outside) / np.sqrt(120)
  assert np.std(outside) / np.sqrt(120) < 0.03  # so that this says something


def test_leaving_out_only_one_of_the_pair_would_not_be_fair():
  """Why pairs: the choice must not see either of the two models."""
  rng = np.random.default_rng(1)
  leaky = []
  for _ in range(120):
    runs = models(rng, 8, 8)
    blocks = detector.Choice.of(runs, {"g": NAMES})._blocks["g"]
    wins_PNL = detector._wins(*blocks)
    rest_PNL = wins_PNL.sum((0, 1), keepdims=True) - wins_PNL.sum(
      1, keepdims=True
    )  # the positive model alone is left out
    best = np.argmax(rest_PNL, axis=2, keepdims=True)
    best_PN1 = np.broadcast_to(best, (*wins_PNL.shape[:2], 1))
    leaky.append(np.take_along_axis(wins_PNL, best_PN1, axis=2).mean())
  assert abs(np.mean(leaky) - 0.5) > 4 * np.std(leaky) / np.sqrt(120)


def test_the_held_out_choice_is_that_of_a_plain_loop():
  rng = np.random.default_rng(2)
  runs = models(rng, 4, 5, effect=1.0)
  choice = detector.Choice.of(runs, {"g": NAMES})
  wins_PN, group_P, group_N = choice.held_out()
  values = np.array([[r.last(name) for name in NAMES] for r in runs])
  positive, negative = values[:4], values[4:]

  def share(p, n, latent):
    return np.mean([a > b for a in p[:, latent] for b in n[:, latent]])

  for i in range(4):
    for j in range(5):
      p, n = np.delete(positive, i, 0), np.delete(negative, j, 0)
      best = max(range(30), key=lambda latent: (share(p, n, latent), -latent))
      assert wins_PN[i, j] == (positive[i, best] > negative[j, best])
  assert group_P == ["g"] * 4 and group_N == ["g"] * 5


def test_a_latent_that_means_something_is_found_held_out():
  rng = np.random.default_rng(3)
  runs = models(rng, 8, 8, effect=4.0)
  found = detector.statistics(runs, {"g": NAMES}, monitor_config())
  assert row(found, "latent 3")["auroc"] > 0.95
  assert row(found, detector.CHOSEN)["auroc"] > 0.9
  shuffled = found["shuffled"]
  assert shuffled["in_sample_auroc"] > 0.75
  assert abs(shuffled["auroc"] - 0.5) < 0.1
  assert (found["models"], found["positive"]) == (16, 8)


def test_selected_models_count_in_sample_only():
  rng = np.random.default_rng(4)
  runs = [
    run(f"b{i}", {"s": [i], "latents": [i]}, selection=i == 0) for i in range(4)
  ]
  runs += [
    run(
      f"s{i}",
      {"s": [-1.0 if i else 99.0], "latents": [0.0]},
      role="suspect",
      shows=[True],
      selection=i == 0,
    )
    for i in range(3)
  ]
  del rng
  found = row(detector.statistics(runs, {"g": []}, monitor_config()), "s")
  assert found["auroc"] == 0  # the tested ones
  assert found["in_sample_auroc"] == pytest.approx(4 / 12)
  assert found["tpr"] == 0 and found["tpr_of"] == 2


def test_rates_at_the_stated_threshold():
  runs = [run(f"b{i}", {"s": [i / 100]}, group="a") for i in range(10)]
  runs += [run(f"b{i}", {"s": [i / 100]}, group="b") for i in range(10)]
  runs += [
    run(f"s{i}", {"s": [v]}, role="suspect", shows=[True], group="a")
    for i, v in enumerate((1.0, 2.0, 0.01))
  ]
  runs += [run("dose", {"s": [0.5]}, role="suspect", group="b")]
  found = row(
    detector.statistics(runs, {"a": [], "b": []}, monitor_config(0.1)), "s"
  )
  assert found["threshold"] == 0.09 and found["threshold_rate"] <= 0.1
  assert found["tpr"] == pytest.approx(2 / 3)
  assert found["below"] == 1  # seen in a model that does not show it yet
  # Each group's benign models against the other's: only ties with the largest.
  assert found["fpr"] == 0 and found["fpr_of"] == 20
  assert found["auroc_group_out"]["mean"] == pytest.approx(
    np.mean(
      [
        [v > b for b in (0.0, *np.arange(1, 10) / 100)] + [[v == b] for b in ()]
        for v in (1.0, 2.0)
      ]
      + [[0.5 * (b == 0.01) + (b < 0.01) for b in np.arange(10) / 100]]
    )
  )


def test_without_enough_models_there_is_no_figure():
  runs = [run("b", {"latents": [0.0]})]
  found = detector.statistics(runs, {"g": []}, monitor_config())
  assert row(found, "latents")["auroc"] is None
  assert row(found, detector.CHOSEN)["auroc"] is None
  assert found["shuffled"] is None
  # One model of a kind: nothing is left to choose on.
  one = models(np.random.default_rng(5), 1, 3)
  found = detector.statistics(one, {"g": NAMES}, monitor_config())
  assert row(found, detector.CHOSEN)["auroc"] is None
  assert row(found, detector.CHOSEN)["in_sample_auroc"] is not None


def test_doses_are_ordered_by_their_last_values():
  def series(values, **kwargs):
    return [
      run(f"d{d}", [9, v], role="suspect", dose=d, **kwargs) for d, v in values
    ]

  rising = series([(0.05, 1.0), (0.25, 2.0), (0.5, 2.5)])
  found = dose.series(rising, "s", 1.5)
  assert found["ordered"] and found["tau"] == 1
  assert found["values"] == [[0.05, 1.0], [0.25, 2.0], [0.5, 2.5]]
  assert found["alarm_dose"] == 0.25 and found["behaviour_dose"] is None
  mixed = dose.series(series([(0.05, 1.0), (0.25, 0.5), (0.5, 2.0)]), "s", None)
  assert not mixed["ordered"] and mixed["tau"] == pytest.approx(1 / 3)
  assert mixed["alarm_dose"] is None
  assert not dose.series(series([(0.05, 1.0)]), "s", 0)["ordered"]
  chosen = rising + series([(1.0, -7.0)], selection=True)
  found = dose.series(chosen, "s", None)
  assert found["ordered"] and found["selected"] == [[1.0, -7.0]]
  assert not found["ordered_with_selected"]
  assert dose.series([run("b", [1])], "s", None) is None


def test_kendalls_tau_is_scipys():
  from scipy import stats

  rng = np.random.default_rng(6)
  x, y = rng.integers(0, 4, 20), rng.integers(0, 5, 20)
  assert dose.kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
  assert dose.kendall(np.ones(4), np.arange(4)) is None
