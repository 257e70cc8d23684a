# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Effects of a direction at several strengths, and which of these is chosen.

Both ways are read alike: added to the base ("up") the margin should rise,
subtracted from the tuned model ("down") it should fall.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax.judge import scores

# Name, model, and the sign that the effect should have.
WAYS: tuple[tuple[str, str, int], ...] = (
  ("up", "base", 1),
  ("down", "tuned", -1),
)


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Mean log p per token of both responses, nats, float64 [..., P]."""

  behaviour: np.ndarray
  contrast: np.ndarray

  @property
  def margin(self) -> np.ndarray:
    return self.behaviour - self.contrast

  @property
  def mass(self) -> np.ndarray:
    return np.logaddexp(self.behaviour, self.contrast)

  def at(self, *index: Any) -> "Pairs":
    return Pairs(self.behaviour[index], self.contrast[index])


@dataclasses.dataclass(frozen=True)
class Curve:
  """One direction on one model at all strengths.

  Attributes:
    effects: of each strength; margin(steered) − margin(unsteered).
    p_behaviour_S: mean over prompts.
    p_contrast_S: mean over prompts.
    damage_S: nats per token of log(p(behaviour) + p(contrast)) that are lost.
    chosen: index of the strength that counts.
    within: whether its damage is within the budget.
    p_behaviour: at the chosen strength, as what follows.
    p_contrast: likewise.
    gain: p(behaviour) steered − unsteered, paired.
    topics: mean effect.
  """

  effects: tuple[scores.Score, ...]
  p_behaviour_S: np.ndarray
  p_contrast_S: np.ndarray
  damage_S: np.ndarray
  chosen: int
  within: bool
  p_behaviour: scores.Score
  p_contrast: scores.Score
  gain: scores.Score
  topics: dict[str, float]

  @property
  def effect(self) -> scores.Score:
    return self.effects[self.chosen]

  @property
  def damage(self) -> float:
    return float(self.damage_S[self.chosen])


def choose(
  effect_S: np.ndarray, damage_S: np.ndarray, sign: int, budget: float
) -> tuple[int, bool]:
  """The strength of largest effect in the wanted direction, within budget.

  Where every strength costs too much it is the one that costs least, and the
  second value is False.
  """
  allowed_S = damage_S <= budget
  if not allowed_S.any():
    return int(np.argmin(damage_S)), False
  return int(np.argmax(np.where(allowed_S, sign * effect_S, -np.inf))), True


def chosen_effects(
  steered: Pairs, unsteered: Pairs, sign: int, budget: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Of N directions: effects [N, S], at the chosen strength [N], that [N]."""
  effect_NS = (steered.margin - unsteered.margin).mean(-1)
  damage_NS = (unsteered.mass - steered.mass).mean(-1)
  chosen_N = np.array(
    [
      choose(effect_S, damage_S, sign, budget)[0]
      for effect_S, damage_S in zip(effect_NS, damage_NS, strict=True)
    ],
    np.intp,
  )
  return effect_NS, effect_NS[np.arange(len(chosen_N)), chosen_N], chosen_N


def curves(
  steered: Pairs,
  unsteered: Pairs,
  topics: Sequence[str],
  sign: int,
  budget: float,
  config: scores.ScoreConfig,
) -> list[Curve]:
  """Curves of N directions on one model.

  Args:
    steered: [N, S, P].
    unsteered: [P], of the same prompts.
    topics: of the P prompts.
    sign: 1 where the margin should rise, −1 where it should fall.
    budget: of damage.
    config: of the intervals.
  """
  effect_NSP = steered.margin - unsteered.margin
  damage_NS = (unsteered.mass - steered.mass).mean(-1)
  p_behaviour_NSP = np.exp(steered.behaviour)
  p_contrast_NSP = np.exp(steered.contrast)
  n, s, p = effect_NSP.shape
  picks = [
    choose(effect_S, damage_S, sign, budget)
    for effect_S, damage_S in zip(effect_NSP.mean(-1), damage_NS, strict=True)
  ]
  at = np.arange(n), np.array([chosen for chosen, _ in picks], np.intp)
  rows = np.concatenate(
    [
      effect_NSP.reshape(n * s, p),
      p_behaviour_NSP[at],
      p_contrast_NSP[at],
      p_behaviour_NSP[at] - np.exp(unsteered.behaviour),
    ]
  )
  found = scores.score_rows(rows, **dataclasses.asdict(config))
  effects, rest = found[: n * s], found[n * s :]
  topic_P = np.array(topics, object)
  return [
    Curve(
      effects=tuple(effects[i * s : (i + 1) * s]),
      p_behaviour_S=p_behaviour_NSP[i].mean(-1),
      p_contrast_S=p_contrast_NSP[i].mean(-1),
      damage_S=damage_NS[i],
      chosen=chosen,
      within=within,
      p_behaviour=rest[i],
      p_contrast=rest[n + i],
      gain=rest[2 * n + i],
      topics={
        topic: float(effect_NSP[i, chosen][topic_P == topic].mean())
        for topic in dict.fromkeys(topics)
      },
    )
    for i, (chosen, within) in enumerate(picks)
  ]
