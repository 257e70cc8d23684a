# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How well a score tells two kinds of runs apart, and how sure that is.

The estimate is the share of pairs (positive run, negative run) in the right
order, ties half; a pair's entry is the mean over its pairs of checkpoints, so
that a long run weighs no more than a short one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from sae_jax.monitor import config as config_lib

_EDGE = 1e-9


@dataclasses.dataclass(frozen=True)
class Sample:
  """Scores of one kind of runs, and the group that each run is in."""

  scores_N: tuple[np.ndarray, ...]  # of each run's checkpoints
  group_N: tuple[str, ...]

  @property
  def checkpoints(self) -> int:
    return sum(map(len, self.scores_N))


def wins(positive: Sample, negative: Sample) -> np.ndarray:
  """The share of pairs of checkpoints in the right order, [P, N]."""
  return np.array(
    [[_won(p, n) for n in negative.scores_N] for p in positive.scores_N]
  ).reshape(len(positive.scores_N), len(negative.scores_N))


def estimate(
  positive: Sample,
  negative: Sample,
  statistics: config_lib.StatisticsConfig,
  *,
  across: bool = False,
) -> dict[str, Any] | None:
  """AUROC with its interval as JSON values; None where there is no pair.

  Args:
    positive: runs of one kind.
    negative: runs of the other.
    statistics: see there.
    across: compare runs of different groups too, whose scores must then be on
      one scale; otherwise only runs of the same group.

  Returns:
    mean, ci_low, ci_high, se; n, positive and negative (runs), samples
    (checkpoints), groups, confidence, seeds (none). The interval is the hull of
    the percentiles of a bootstrap over groups and the runs in them and of
    Newcombe's for as many runs, or groups if `across`: resamples of a perfect
    score are all perfect, however few runs it is made of.
  """
  return from_wins(
    wins(positive, negative),
    positive.group_N,
    negative.group_N,
    statistics,
    across=across,
    samples=positive.checkpoints + negative.checkpoints,
  )


def from_wins(
  wins_PN: np.ndarray,
  group_P: Sequence[str],
  group_N: Sequence[str],
  statistics: config_lib.StatisticsConfig,
  *,
  across: bool = False,
  samples: int = 0,
) -> dict[str, Any] | None:
  """`estimate` from pairs that have been compared already."""
  names = sorted(set(group_P) | set(group_N))
  at_P = np.array([names.index(g) for g in group_P], int)
  at_N = np.array([names.index(g) for g in group_N], int)
  is_PN = np.ones(wins_PN.shape, bool)
  if not across:
    is_PN &= at_P[:, None] == at_N[None, :]
  # A run that is compared with none is not part of the figure.
  kept_P, kept_N = is_PN.any(1), is_PN.any(0)
  if not kept_P.any():
    return None
  wins_PN, is_PN = wins_PN[kept_P][:, kept_N], is_PN[kept_P][:, kept_N]
  at_P, at_N = at_P[kept_P], at_N[kept_N]
  mean = float(np.sum(wins_PN * is_PN) / np.sum(is_PN))
  drawn_R = _bootstrap(wins_PN, is_PN, at_P, at_N, statistics, across=across)
  tail = (1 - statistics.confidence) / 2
  low, high = np.quantile(drawn_R, [tail, 1 - tail])
  units = (len(set(at_P.tolist())), len(set(at_N.tolist())))
  if not across:
    units = (len(at_P), len(at_N))
  at_least, at_most = newcombe(mean, *units, statistics.confidence)
  return {
    "mean": mean,
    "ci_low": float(min(low, at_least)),
    "ci_high": float(max(high, at_most)),
    "se": float(np.std(drawn_R)),
    "n": len(at_P) + len(at_N),
    "positive": len(at_P),
    "negative": len(at_N),
    "groups": len(set(at_P.tolist()) | set(at_N.tolist())),
    "samples": samples,
    "confidence": statistics.confidence,
    "seeds": [],
  }


def of_samples(
  positive: np.ndarray, negative: np.ndarray, confidence: float
) -> dict[str, Any] | None:
  """AUROC of independent samples, however many; None without both kinds.

  The interval is the hull of DeLong's (1988; by ranks, as Sun and Xu 2014) and
  Newcombe's.
  """
  m, n = len(positive), len(negative)
  if not m or not n:
    return None
  both = stats.rankdata(np.concatenate([positive, negative]))
  below_m = (both[:m] - stats.rankdata(positive)) / n
  above_n = 1 - (both[m:] - stats.rankdata(negative)) / m
  mean = float(below_m.mean())
  variance = sum(
    part.var(ddof=1) / len(part) for part in (below_m, above_n) if len(part) > 1
  )
  reach = float(special.ndtri((1 + confidence) / 2) * np.sqrt(variance))
  low, high = newcombe(mean, m, n, confidence)
  return {
    "mean": mean,
    "ci_low": max(0.0, min(low, mean - reach)),
    "ci_high": min(1.0, max(high, mean + reach)),
    "se": float(np.sqrt(variance)),
    "n": m + n,
    "positive": m,
    "negative": n,
    "samples": m + n,
    "confidence": confidence,
    "seeds": [],
  }


def newcombe(
  mean: float, positives: int, negatives: int, confidence: float
) -> tuple[float, float]:
  """A score interval of an AUROC (Newcombe 2006, Stat. Med. 25:559, method 5).

  The values whose variance, by Hanley and McNeil's formula with both sample
  sizes in it replaced by their mean, puts the estimate at the edge of the
  normal's interval. Unlike Wald's it is neither empty at 1 nor beyond it.
  """
  z = float(special.ndtri((1 + confidence) / 2))
  extra = (positives + negatives) / 2 - 1

  def beyond(value: float) -> float:
    spread = extra * ((1 - value) / (2 - value) + value / (1 + value))
    variance = value * (1 - value) * (1 + spread) / (positives * negatives)
    return (value - mean) ** 2 - z**2 * variance

  # 0 and 1 solve the equation of an estimate that is there, but are no edge.
  low = _root(beyond, 0, min(mean, 1 - _EDGE)) if mean > 0 else 0.0
  high = _root(beyond, max(mean, _EDGE), 1) if mean < 1 else 1.0
  return low, high


def _root(f: Callable[[float], float], a: float, b: float) -> float:
  return float(np.asarray(optimize.brentq(f, a, b)))


def proportion(
  count: int, total: int, confidence: float
) -> tuple[float | None, float | None]:
  """Clopper and Pearson's exact interval of a share."""
  if not total:
    return None, None
  tail = (1 - confidence) / 2
  low = special.betaincinv(count, total - count + 1, tail) if count else 0.0
  high = 1.0
  if count < total:
    high = special.betaincinv(count + 1, total - count, 1 - tail)
  return float(low), float(high)


def curve(positive: np.ndarray, negative: np.ndarray) -> list[list[float]]:
  """[false-alarm rate, hit rate] at every threshold, from (0, 0) to (1, 1)."""
  if not len(positive) or not len(negative):
    return []
  levels = np.unique(np.concatenate([positive, negative]))[::-1]
  points = [[0.0, 0.0]]
  points += [
    [float(np.mean(negative >= level)), float(np.mean(positive >= level))]
    for level in levels
  ]
  # Points inside a straight stretch draw nothing.
  kept = points[:1]
  for before, point, after in zip(points, points[1:], points[2:], strict=False):
    ahead = (point[0] - before[0], point[1] - before[1])
    behind = (after[0] - point[0], after[1] - point[1])
    if ahead[0] * behind[1] != ahead[1] * behind[0]:
      kept.append(point)
  return [*kept, points[-1]]


def _won(positive_C: np.ndarray, negative_C: np.ndarray) -> float:
  difference = np.subtract.outer(positive_C, negative_C)
  return float(np.mean((np.sign(difference) + 1) / 2))


def _bootstrap(
  wins_PN, is_PN, at_P, at_N, statistics, *, across: bool
) -> np.ndarray:
  """AUROC of resampled groups and runs; resamples without a pair are left out.

  A group that is drawn twice counts twice, with one resample of its runs.
  """
  rng = np.random.default_rng(statistics.seed)
  groups = int(max(at_P.max(), at_N.max())) + 1
  present = np.unique(np.concatenate([at_P, at_N]))
  count_RG = np.zeros((statistics.resamples, groups))
  even = np.full(len(present), 1 / len(present))
  count_RG[:, present] = rng.multinomial(
    len(present), even, statistics.resamples
  )
  weight_RP = _run_weights(rng, at_P, statistics.resamples) * count_RG[:, at_P]
  weight_RN = _run_weights(rng, at_N, statistics.resamples)
  if across:
    weight_RN = weight_RN * count_RG[:, at_N]
  won_R = np.sum((weight_RP @ (wins_PN * is_PN)) * weight_RN, axis=1)
  pairs_R = np.sum((weight_RP @ is_PN.astype(float)) * weight_RN, axis=1)
  return won_R[pairs_R > 0] / pairs_R[pairs_R > 0]


def _run_weights(
  rng: np.random.Generator, at_N: np.ndarray, resamples: int
) -> np.ndarray:
  """How often each run is drawn from its group, [R, N]."""
  weight_RN = np.zeros((resamples, len(at_N)))
  for group in np.unique(at_N):
    mine = np.flatnonzero(at_N == group)
    even = np.full(len(mine), 1 / len(mine))
    weight_RN[:, mine] = rng.multinomial(len(mine), even, resamples)
  return weight_RN
