# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every rule of the verdict decides by itself; strengths stay in the budget."""

import dataclasses

import numpy as np
import pytest

from sae_jax import judge
from sae_jax.intervene import config, strength, verdict
from sae_jax.judge import scores

BAND = verdict.Band(np.array([-0.1, 0.0, 0.1, 0.05, -0.05]))


def score(mean, reach=0.1):
  return scores.Score(mean, mean - reach, mean + reach, reach / 2, 20, 20)


def curve(sign=1, **changes):
  """One that passes."""
  return dataclasses.replace(
    strength.Curve(
      effects=(score(0.2 * sign), score(1.0 * sign)),
      p_behaviour_S=np.array([0.3, 0.6]),
      p_contrast_S=np.array([0.6, 0.3]),
      damage_S=np.array([0.0, 0.1]),
      chosen=1,
      within=True,
      p_behaviour=score(0.6),
      p_contrast=score(0.3),
      gain=score(0.3 * sign),
      topics={},
    ),
    **changes,
  )


@pytest.mark.parametrize("sign", [1, -1])
def test_a_way_that_meets_every_rule_passes(sign):
  found = verdict.check(curve(sign), sign, BAND)
  assert found.passes and found.outside
  assert found.z == pytest.approx(1.0 / BAND.effect_R.std(ddof=1))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
  "changes, failed",
  [
    ({"within": False}, "every strength costs more than the budget"),
    ({"chosen": 0, "effects": (-0.5,)}, "the effect has the other sign"),
    ({"chosen": 0, "effects": (0.5, 0.6)}, "the interval holds 0"),
    ({"chosen": 0, "effects": (0.099, 0.01)}, "random ones do as much"),
    ({"chosen": 0, "effects": (0.15, 0.01)}, "z < 3"),
    ({"gain": (0.05, 0.1)}, "p(behaviour) does not"),
    ({"gain": (-0.3, 0.1)}, "p(behaviour) does not"),
  ],
)
def test_each_rule_alone_can_fail_a_way(sign, changes, failed):
  changes = dict(changes)
  if "effects" in changes:
    mean, *reach = changes["effects"]
    changes["effects"] = (score(sign * mean, *reach),)
  if "gain" in changes:
    mean, reach = changes["gain"]
    changes["gain"] = score(sign * mean, reach)
  found = verdict.check(curve(sign, **changes), sign, BAND)
  assert not found.passes
  assert any(why.startswith(failed) for why in found.failed)
  if failed != "the effect has the other sign":  # which no band is beyond
    assert len(found.failed) == 1


def test_random_ones_that_all_agree_prove_nothing():
  same = verdict.Band(np.full(5, 0.01))
  found = verdict.check(curve(), 1, same)
  assert found.z is None and found.outside and found.failed == ("z < 3",)
  nobody = verdict.Band(np.zeros(0))
  assert not verdict.check(curve(), 1, nobody).passes


PASS = verdict.Passed(5.0, True, ())
FAIL = verdict.Passed(1.0, False, ("random ones do as much",))


@pytest.mark.parametrize(
  "up, down, changed, expected",
  [
    (PASS, PASS, False, ("causal", "both")),
    (PASS, FAIL, True, ("correlated", "up")),
    (FAIL, PASS, False, ("inert", "down")),
    (FAIL, FAIL, True, ("correlated", "none")),
    (FAIL, FAIL, False, ("inert", "none")),
  ],
)
def test_both_ways_make_a_cause(up, down, changed, expected):
  found = verdict.decide(up, down, changed)
  assert found[:2] == expected
  if expected[1] in ("up", "down"):
    other = {"up": "down", "down": "up"}[expected[1]]
    assert f"{other}: random ones do as much" in found[2]


def test_the_rules_name_their_numbers():
  told = config.SteerConfig(
    base="base",
    tuned="tuned",
    sae="sae",
    latents=(1,),
    prompts=judge.PromptsConfig(path="prompts.jsonl"),
    damage=0.25,
    statistics=scores.ScoreConfig(confidence=0.9),
    random=20,
  )
  text = " ".join(verdict.rules(told))
  for number in ("0.25", "90%", "20 random", "z >= 3", "subtracted"):
    assert number in text


@pytest.mark.parametrize(
  "effects, damages, sign, expected",
  [
    ((0.1, 0.5, 0.9), (0.0, 0.1, 0.9), 1, (1, True)),
    ((-0.1, -0.5, -0.9), (0.0, 0.1, 0.2), -1, (2, True)),
    ((0.1, 0.5, -0.9), (0.0, 0.1, 0.2), -1, (2, True)),
    ((-0.1, -0.5), (0.0, 0.1), 1, (0, True)),
    ((0.1, 0.5), (0.7, 0.6), 1, (1, False)),
    ((0.1, 0.5), (-0.7, 0.25), 1, (1, True)),
  ],
)
def test_the_strength_of_largest_effect_within_the_budget_is_chosen(
  effects, damages, sign, expected
):
  found = strength.choose(np.array(effects), np.array(damages), sign, 0.25)
  assert found == expected


def test_a_margin_that_moves_because_both_answers_die_costs_the_budget():
  """Both probabilities fall; the margin rises all the same."""
  plain = strength.Pairs(np.log(np.full(8, 0.2)), np.log(np.full(8, 0.7)))
  dying = strength.Pairs(
    np.log(np.full((1, 1, 8), 0.1)), np.log(np.full((1, 1, 8), 0.1))
  )
  (found,) = strength.curves(
    dying, plain, ["t"] * 8, 1, 0.25, scores.ScoreConfig(resamples=100)
  )
  assert found.effect.mean == pytest.approx(np.log(3.5))
  assert found.damage == pytest.approx(np.log(0.9 / 0.2))
  assert not found.within
  assert found.gain.mean == pytest.approx(-0.1)


def test_curves_are_means_of_what_was_measured():
  rng = np.random.default_rng(0)
  plain = strength.Pairs(*rng.normal(-1, 0.3, (2, 6)))
  steered = strength.Pairs(*rng.normal(-1, 0.3, (2, 3, 2, 6)))
  topics = ["a", "b", "a", "b", "b", "b"]
  found = strength.curves(
    steered, plain, topics, -1, 9.0, scores.ScoreConfig(resamples=100)
  )
  effect_NSP = (steered.behaviour - steered.contrast) - (
    plain.behaviour - plain.contrast
  )
  effect_NS, chosen_N, at_N = strength.chosen_effects(steered, plain, -1, 9.0)
  for n, one in enumerate(found):
    means = [effect.mean for effect in one.effects]
    np.testing.assert_allclose(means, effect_NSP[n].mean(-1))
    assert one.chosen == at_N[n] == np.argmin(effect_NSP[n].mean(-1))
    assert one.effect.mean == pytest.approx(chosen_N[n])
    in_a = effect_NSP[n, one.chosen][[0, 2]].mean()
    assert one.topics["a"] == pytest.approx(in_a)
    assert one.p_behaviour.mean == pytest.approx(
      np.exp(steered.behaviour[n, one.chosen]).mean()
    )
  np.testing.assert_allclose(effect_NS, effect_NSP.mean(-1))
