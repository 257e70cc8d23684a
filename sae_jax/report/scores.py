# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores as the judges write them, in words; what is not known is a dash.

A score is {"mean", "ci_low", "ci_high", "se", "n", "samples", "seeds"}; a
plain number stands for one whose interval is not known.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sae_jax.report import diff_words, say

Score = Mapping[str, Any] | float | None


def mean(score: Score) -> float | None:
  value = score.get("mean") if isinstance(score, Mapping) else score
  return None if value is None or math.isnan(value) else float(value)


def bounds(score: Score) -> tuple[float, float] | None:
  """Of the interval, where it is known."""
  if not isinstance(score, Mapping):
    return None
  low, high = score.get("ci_low"), score.get("ci_high")
  if low is None or high is None or math.isnan(low) or math.isnan(high):
    return None
  return float(low), float(high)


def ends(score: Score) -> tuple[float, float, float] | None:
  """(mean, low, high), the mean itself where the interval is not known."""
  value = mean(score)
  if value is None:
    return None
  low, high = bounds(score) or (value, value)
  return value, low, high


def signed(score: Score, digits: int = 3) -> str:
  return diff_words.signed(mean(score), digits)


def with_bounds(score: Score) -> str:
  """+0.211 (+0.162 to +0.263)."""
  known = bounds(score)
  if known is None:
    return signed(score)
  low, high = known
  return (
    f"{signed(score)} ({diff_words.signed(low, 2)} to"
    f" {diff_words.signed(high, 2)})"
  )


def span(score: Score) -> str:
  """+0.16 to +0.26, "" where it is not known."""
  known = bounds(score)
  if known is None:
    return ""
  low, high = known
  return f"{diff_words.signed(low, 2)} to {diff_words.signed(high, 2)}"


def share(score: Score) -> str:
  """A rate: 61.0 % (55.2 % to 66.1 %)."""
  known = bounds(score)
  if known is None:
    return percent(mean(score))
  low, high = known
  return f"{percent(mean(score))} ({percent(low)} to {percent(high)})"


def percent(value: float | None) -> str:
  """A rate in whole percent, below ten with one more digit."""
  if value is None or math.isnan(value):
    return say.MISSING
  hundredfold = 100 * value
  if hundredfold in (0, 100):
    return f"{hundredfold:.0f}\u00a0%"
  return f"{fixed(hundredfold, 0 if abs(hundredfold) >= 9.95 else 1)}\u00a0%"


def fixed(value: float | None, decimals: int, *, sign: bool = False) -> str:
  """So many decimals, for columns that compare; no −0.0."""
  if value is None or math.isnan(value):
    return say.MISSING
  text = f"{value:{'+' if sign else ''},.{decimals}f}".replace("-", "−")
  return text if text.strip("+−0.,") else text.lstrip("+−")


def decimals(values: Iterable[float | None]) -> int:
  """As many as give the largest of some values three digits."""
  largest = max((abs(v) for v in values if v is not None), default=0.0)
  return max(0, 2 - math.floor(math.log10(largest))) if largest else 0


def chance(score: Score) -> str:
  """A probability to read: 0.021."""
  return say.number(mean(score), 2)


def counted(score: Score) -> str:
  """What a score rests on: 60 prompts, 240 answers, seeds 0, 1."""
  if not isinstance(score, Mapping) or not score.get("n"):
    return ""
  words = diff_words.plural(score["n"], "prompt")
  if (score.get("samples") or 0) > score["n"]:
    words += f", {score['samples']:,} answers"
  return words + seeds(score.get("seeds"))


def seeds(found: Sequence[int] | None) -> str:
  if not found:
    return ""
  word = "seed" if len(found) == 1 else "seeds"
  return f", {word} {', '.join(str(seed) for seed in found)}"


def interval(score: Score, low: float, high: float) -> dict[str, float] | None:
  """Where the template draws a score on an axis from `low` to `high`."""
  value = mean(score)
  if value is None or not high > low:
    return None

  def place(x: float) -> float:
    return round(min(max(2 + 96 * (x - low) / (high - low), 0), 100), 1)

  start, stop = bounds(score) or (value, value)
  return {
    "low": place(start),
    "high": place(stop),
    "at": place(value),
    "zero": place(0),
  }
