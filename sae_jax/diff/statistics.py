# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How sure a difference is: one estimate per latent, groups resampled whole.

The quantity comes as sums over groups z_g; the estimate is Σ z_g / Σ n_g, the
mean over tokens. Latents are worked on in blocks of 2²² / max(R, G A), for R
resamples, G groups and A arms; a block takes at most 44 R + 56 G A bytes per
latent. So memory is at most 420 MB for any number of latents (200 MB for 1000
resamples of 64 groups), plus 150 bytes per latent for the columns.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sae_jax.diff import config as config_lib
from sae_jax.diff import false_discovery, resampling
from sae_jax.judge import bootstrap

# A difference that is zero in all but fewer groups than this is not tested:
# no test of so few can tell it from chance.
MIN_GROUPS = 5
_T_MAX = 1e6  # |t| of groups that agree to rounding
_BLOCK = 1 << 22  # elements of the largest temporary

Block = Callable[[int, int], np.ndarray]  # (start, stop) -> float64 [G, F']


@dataclasses.dataclass(frozen=True)
class Measured:
  """Columns of `table.COLUMNS`, and what there is to say beside them."""

  columns: dict[str, np.ndarray]
  summary: dict[str, Any]


def estimate(
  block: Block,
  n_G: np.ndarray,
  latents: int,
  config: config_lib.StatisticsConfig,
  *,
  noise_F: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
  """The columns of `measure` for one quantity."""
  return measure([block], n_G, latents, config, noise_F=noise_F).columns


def measure(
  blocks: Sequence[Block],
  n_G: np.ndarray,
  latents: int,
  config: config_lib.StatisticsConfig,
  *,
  noise_F: np.ndarray | None = None,
) -> Measured:
  """Estimates, intervals and tests of every latent.

  One block: groups are the sample; the variance is the ratio estimator's
  (Cochran 1977, ch. 6), G/(G−1) Σ (z_g − e n_g)² / (Σ n_g)², with G−1 degrees
  of freedom. Several blocks are arms that are a sample too: the estimate is
  their mean, and the variance of arms, Var(e_a)/A, is added, with
  Satterthwaite's degrees of freedom.

  A latent has `changed` if its q is at most config.q, its interval excludes 0
  and its estimate is beyond the numerical noise.

  Args:
    blocks: per arm, `block(start, stop)` gives sums over groups of latents
      [start, stop), float64 [G, stop − start], rows as in `n_G`.
    n_G: rows of each group; groups without rows are left out.
    latents: F.
    config: see there.
    noise_F: differences up to this size are numerical.

  Returns:
    columns score, ci_low, ci_high, effect, t, p, q, p_max, changed, stability,
    [F] each; summary: groups, tested, changed, false discoveries under sign
    flips ("shuffled"), warnings.
  """
  sample = _Sample(np.asarray(n_G, np.float64), len(blocks), config)
  found = {
    name: np.zeros(latents)
    for name in ("score", "ci_low", "ci_high", "effect", "t")
  }
  found["p"] = np.ones(latents)
  tested_F = np.zeros(latents, bool)
  for start in range(0, latents, sample.block):
    stop = min(start + sample.block, latents)
    z_AGF = np.stack([np.asarray(b(start, stop), float) for b in blocks])
    z_AGF = z_AGF[:, sample.kept_G] / sample.size
    live_F = (z_AGF != 0).any((0, 1))
    at_F = start + np.flatnonzero(live_F)
    if not len(at_F):
      continue
    part, tested = sample.columns(z_AGF[:, :, live_F], at_F)
    for name, values in part.items():
      found[name][at_F] = values
    tested_F[at_F] = tested
  found["q"] = false_discovery.q_values(found["p"], tested_F)
  found["p_max"] = sample.family_wise(found["t"], tested_F)
  found["stability"] = np.where(
    found["score"] > 0, sample.up.share(latents), sample.down.share(latents)
  )
  beyond_F = (found["ci_low"] > 0) | (found["ci_high"] < 0)
  if noise_F is not None:
    beyond_F &= np.abs(found["score"]) > noise_F
  significant_F = tested_F & (found["q"] <= config.q)
  changed_F = significant_F & beyond_F
  summary = {
    "groups": sample.groups,
    "arms": len(blocks),
    "tested": int(tested_F.sum()),
    "significant": int(significant_F.sum()),
    "changed": int(changed_F.sum()),
    "shuffled": sample.shuffled(int(tested_F.sum()), int(significant_F.sum())),
    "warnings": sample.warnings(),
  }
  return Measured({**found, "changed": changed_F}, summary)


class _Sample:
  """The groups, their resamples, and what accumulates over blocks."""

  def __init__(
    self, n_G: np.ndarray, arms: int, config: config_lib.StatisticsConfig
  ):
    self.kept_G = np.flatnonzero(n_G > 0)
    self.groups = len(self.kept_G)
    self.size = n_G[self.kept_G].mean()
    self.n_G = n_G[self.kept_G] / self.size
    self.arms = arms
    self.config = config
    flips = max(config.resamples, config.shuffles)
    self.draws = resampling.draw(config.seed, self.groups, arms, flips)
    self.block = max(1, _BLOCK // max(flips, self.groups * arms))
    self.up = resampling.Top(config.top, flips)
    self.down = resampling.Top(config.top, flips)
    self._largest_R = np.zeros(flips)  # of |t|, over latents, per flip
    self._small_p: list[list[np.ndarray]] = [[] for _ in range(config.shuffles)]

  def columns(
    self, z_AGF: np.ndarray, at_F: np.ndarray
  ) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of latents that are not zero everywhere; which are tested."""
    score_AF = z_AGF.sum(1) / self.groups
    score_F = score_AF.mean(0)
    residual_GF = z_AGF.mean(0) - score_F[None, :] * self.n_G[:, None]
    variance_F, dof_F = self._variance((residual_GF**2).sum(0), score_AF.var(0))
    error_F = np.sqrt(variance_F)
    tested_F = (z_AGF != 0).any(0).sum(0) >= MIN_GROUPS
    t_F = _ratio(score_F, error_F)
    low_F, high_F = self._interval(
      z_AGF, score_F, residual_GF, error_F, dof_F, at_F
    )
    self._flip(z_AGF[:, :, tested_F])
    columns = {
      "score": score_F,
      "ci_low": score_F + low_F,
      "ci_high": score_F + high_F,
      "effect": t_F / np.sqrt(self.groups),
      "t": t_F,
      "p": np.where(tested_F, resampling.student_p(t_F, dof_F), 1.0),
    }
    return columns, tested_F

  def family_wise(self, t_F: np.ndarray, tested_F: np.ndarray) -> np.ndarray:
    """Single-step max-T p-values (Westfall & Young 1993); 1 if not tested."""
    largest_R = np.sort(self._largest_R)
    above_F = len(largest_R) - np.searchsorted(largest_R, np.abs(t_F))
    return np.where(tested_F, (1 + above_F) / (1 + len(largest_R)), 1.0)

  def shuffled(self, tested: int, found: int) -> dict[str, Any]:
    """What the same rule finds when the labels of each group are shuffled."""
    counts_S = [
      false_discovery.discoveries(np.concatenate(p), tested, self.config.q)
      if p
      else 0
      for p in self._small_p
    ]
    mean = float(np.mean(counts_S))
    return {
      "shuffles": len(counts_S),
      "mean_discoveries": mean,
      "share_with_any": float(np.mean(np.array(counts_S) > 0)),
      "false_discovery_rate": min(mean / found, 1.0) if found else None,
    }

  def warnings(self) -> list[str]:
    found = []
    if self.groups < MIN_GROUPS:
      found.append(
        f"{self.groups} groups have rows in scope: with fewer than"
        f" {MIN_GROUPS} nothing can be called changed"
      )
    if 1 < self.arms < MIN_GROUPS:
      found.append(
        f"the mean over {self.arms} arms is about these arms; from fewer than"
        f" {MIN_GROUPS} little follows for another one trained alike"
      )
    return found

  def _variance(self, squares, spread_A) -> tuple[np.ndarray, np.ndarray]:
    """Of the estimate, with its degrees of freedom.

    Args:
      squares: Σ_g (z_g − e n_g)² of the mean over arms.
      spread_A: mean square deviation of the arms' estimates.
    """
    free = max(self.groups - 1, 1)
    if self.groups < 2:
      return np.full(np.shape(squares), np.inf), np.ones(np.shape(squares))
    by_group = squares / (free * self.groups)
    if self.arms == 1:
      return by_group, np.full(np.shape(squares), float(free))
    by_arm = spread_A / (self.arms - 1)
    variance = by_group + by_arm
    parts = by_group**2 / free + by_arm**2 / (self.arms - 1)
    return variance, np.maximum(variance**2 / np.maximum(parts, 1e-300), 1)

  def _interval(
    self, z_AGF, score_F, residual_GF, error_F, dof_F, at_F
  ) -> tuple[np.ndarray, np.ndarray]:
    weight_RG, arm_RA = self.draws.weight_RG, self.draws.arm_RA
    n_G = self.n_G.astype(np.float32)
    rows_R = weight_RG @ n_G
    # In units of the latent's own spread, so that float32 neither under- nor
    # overflows whatever the quantity's unit.
    unit_F = _unit(residual_GF)
    if self.arms == 1:
      residual_GF = (residual_GF / unit_F).astype(np.float32)
      shift_FR = residual_GF.T @ weight_RG.T
    else:
      shift_FR = np.zeros((len(at_F), len(weight_RG)), np.float32)
      for arm, z_GF in enumerate(z_AGF):
        part_GF = z_GF - score_F[None, :] * self.n_G[:, None]
        part_GF = (part_GF / unit_F).astype(np.float32)
        each_R = arm_RA[:, arm] / np.float32(self.arms)
        shift_FR += (part_GF.T @ weight_RG.T) * each_R[None, :]
    shift_FR /= rows_R[None, :]
    value_FR = shift_FR * unit_F[0, :, None].astype(np.float32)
    value_FR += score_F[:, None].astype(np.float32)
    self.up.offer(value_FR, at_F)
    self.down.offer(-value_FR, at_F)
    if self.groups < 2:
      nothing_F = np.full(len(at_F), np.nan)
      return nothing_F, nothing_F
    unit_F, confidence = unit_F[0], self.config.confidence
    if self.arms == 1:
      low_F, high_F = bootstrap.interval(
        shift_FR, residual_GF, n_G, error_F / unit_F, weight_RG, confidence
      )
      return low_F * unit_F, high_F * unit_F
    tail = resampling.expanded_tail(confidence, self.groups)
    low_F, high_F = bootstrap.tails(shift_FR, tail)
    reach_F = bootstrap.t_quantile(confidence, dof_F) * error_F
    return (
      np.minimum(low_F * unit_F, -reach_F),
      np.maximum(high_F * unit_F, reach_F),
    )

  def _flip(self, z_AGF: np.ndarray) -> None:
    """t of every sign flip: the largest, and the small p of the shuffles."""
    if not z_AGF.shape[2]:
      return
    sign_RG, n_G = self.draws.sign_RG, self.n_G.astype(np.float32)
    z_AGF = (z_AGF / _unit(z_AGF.mean(0))).astype(np.float32)
    mean_GF = z_AGF.mean(0)
    groups, arms = np.float32(self.groups), np.float32(self.arms)
    score_AFR = [z_GF.T @ sign_RG.T / groups for z_GF in z_AGF]
    score_FR = sum(score_AFR) / arms
    spread_FR = sum((each_FR - score_FR) ** 2 for each_FR in score_AFR) / arms
    squares_FR = score_FR * (n_G**2).sum()
    squares_FR -= 2 * ((mean_GF * n_G[:, None]).T @ sign_RG.T)
    squares_FR *= score_FR
    squares_FR += (mean_GF**2).sum(0)[:, None]
    variance_FR, dof_FR = self._variance(np.maximum(squares_FR, 0), spread_FR)
    t_FR = np.abs(_ratio(score_FR, np.sqrt(variance_FR)))
    np.maximum(self._largest_R, t_FR.max(0), out=self._largest_R)
    # Fewer degrees of freedom make a larger p: no other t can have p <= q.
    least = bootstrap.t_quantile(1 - self.config.q, self.groups - 1)
    for shuffle, kept in enumerate(self._small_p):
      at_F = np.flatnonzero(t_FR[:, shuffle] >= least)
      kept.append(
        resampling.student_p(t_FR[at_F, shuffle], dof_FR[at_F, shuffle])
      )


def _unit(values_GF: np.ndarray) -> np.ndarray:
  """Root mean square of each latent, [1, F]; 1 where all are 0."""
  unit_F = np.sqrt(np.mean(values_GF**2, axis=0, keepdims=True))
  return np.where(unit_F > 0, unit_F, 1.0)


def _ratio(score, error) -> np.ndarray:
  """t; 0 where the estimate is 0, at most ±1e6 where there is no spread."""
  with np.errstate(divide="ignore", invalid="ignore"):
    t = np.where(score == 0, 0.0, score / error)
  return np.clip(t, -_T_MAX, _T_MAX)
