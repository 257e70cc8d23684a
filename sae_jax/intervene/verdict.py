# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Causal, correlated or inert: the rules, stated in words and applied.

A direction is compared with random ones of equal norm, whose strength was
chosen by the same rule.
"""

import dataclasses
from typing import Literal

import numpy as np

from sae_jax.intervene import config as config_lib
from sae_jax.intervene import strength

Verdict = Literal["causal", "correlated", "inert"]
Ways = Literal["both", "up", "down", "none"]

LEAST_Z = 3.0
_REMOVAL = {
  "subtract": "it is subtracted from the tuned model",
  "project_out": "the tuned model's component along it is lowered by the share"
  " of itself that the strength says",
}


@dataclasses.dataclass(frozen=True)
class Band:
  """Effects of R random directions on one model, at the strength chosen."""

  effect_R: np.ndarray

  @property
  def mean(self) -> float:
    return float(self.effect_R.mean()) if len(self.effect_R) else np.nan

  @property
  def sd(self) -> float:
    if len(self.effect_R) < 2:
      return np.nan
    return float(self.effect_R.std(ddof=1))

  def z(self, effect: float, sign: int) -> float | None:
    """Standard deviations from the mean, > 0 where it is as expected."""
    if not self.sd > 0:
      return None
    return sign * (effect - self.mean) / self.sd

  def outside(self, effect: float, sign: int) -> bool:
    """Whether the effect is beyond that of every random direction."""
    return bool(
      len(self.effect_R) and (sign * effect > sign * self.effect_R).all()
    )


@dataclasses.dataclass(frozen=True)
class Passed:
  """Which rules one way passes; `why` names those that it does not."""

  z: float | None
  outside: bool
  failed: tuple[str, ...]

  @property
  def passes(self) -> bool:
    return not self.failed


def rules(config: config_lib.SteerConfig) -> list[str]:
  """The rules in words, as they stand in summary.json."""
  sure = f"{config.statistics.confidence:.0%}"
  return [
    "An effect is the mean over prompts of margin(steered) − margin(unsteered);"
    " the margin is mean log p per token of the behaviour's response less that"
    " of the contrast's, from the first token in which they differ.",
    "Up: the direction is added to the base, and the margin should rise. Down:"
    f" {_REMOVAL[config.removal]}, and the margin should fall. Its"
    " sign is that of its change in the diff; latents without a score are tried"
    " with either sign, as two rows.",
    "Of the strengths that cost at most"
    f" {config.damage:g} nats per token of log(p(behaviour) + p(contrast)), the"
    " one of largest effect in the expected direction counts, for random"
    " directions too.",
    f"A way passes if its effect is as expected; its {sure} interval excludes"
    f" 0; it is beyond each of {config.random} random directions of the same"
    f" norm and number of latents; z >= {LEAST_Z:g} against them; p(behaviour)"
    " itself rises on the base, or falls on the tuned model, with a"
    f" {sure} interval that excludes 0; and its strength is within the budget"
    " of damage.",
    "causal: both ways pass. correlated: not causal, but changed by the diff's"
    " rule. inert: neither.",
    "z counts standard deviations of the random effects from their mean, and is"
    " above 0 where the effect is as expected. share_of_shift is the effect up,"
    " or minus the effect down, over margin(tuned) − margin(base).",
  ]


def check(curve: strength.Curve, sign: int, band: Band) -> Passed:
  """Applies the rules to one way.

  Args:
    curve: the direction's.
    sign: 1 for up, −1 for down.
    band: on the same model and prompts.
  """
  effect = curve.effect
  z, outside = band.z(effect.mean, sign), band.outside(effect.mean, sign)
  failed = []
  if not curve.within:
    failed.append("every strength costs more than the budget")
  if sign * effect.mean <= 0:
    failed.append("the effect has the other sign")
  elif not effect.excludes_zero:
    failed.append("the interval holds 0")
  if not outside:
    failed.append("random ones do as much")
  elif z is None or z < LEAST_Z:
    failed.append(f"z < {LEAST_Z:g}")
  gain = curve.gain
  if not (sign * gain.mean > 0 and gain.excludes_zero):
    moved = "rise" if sign > 0 else "fall"
    failed.append(f"p(behaviour) does not {moved}")
  return Passed(z, outside, tuple(failed))


def decide(
  up: Passed, down: Passed, changed: bool
) -> tuple[Verdict, Ways, str]:
  """The verdict, the ways that pass, and why."""
  if up.passes and down.passes:
    return "causal", "both", "both ways pass"
  ways: Ways = "up" if up.passes else "down" if down.passes else "none"
  why = "; ".join(
    f"{name}: {', '.join(way.failed) or 'passes'}"
    for name, way in (("up", up), ("down", down))
  )
  return ("correlated" if changed else "inert"), ways, why
