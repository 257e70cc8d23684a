# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How far an estimate's interval reaches, from resamples of whole groups.

A group (a prompt or document) is drawn whole, because what is measured within
one is not independent. What is computed per resample is float32: rounding is
far below the resamples' own noise, and half the memory.
"""

import numpy as np
from scipy import special

_NO_SPREAD = 1e-5  # of a resample's squares: below it, only rounding is left


def t_quantile(confidence: float, dof: np.ndarray | float) -> np.ndarray:
  """The two-sided quantile of Student's t."""
  return special.stdtrit(dof, (1 + confidence) / 2)


def tails(values_FR: np.ndarray, tail: float) -> tuple[np.ndarray, np.ndarray]:
  """Order statistics of each row that leave out at most `tail` on each side."""
  count = values_FR.shape[1]
  low = max(int((count + 1) * tail) - 1, 0)
  high = count - 1 - low
  part_FR = np.partition(values_FR, sorted({low, high}), axis=1)
  return part_FR[:, low], part_FR[:, high]


def interval(
  shift_FR: np.ndarray,
  residual_GF: np.ndarray,
  n_G: np.ndarray,
  error_F: np.ndarray,
  weight_RG: np.ndarray,
  confidence: float,
) -> tuple[np.ndarray, np.ndarray]:
  """How far below and above the estimate its interval reaches, [F] each.

  The hull of Student's interval and the bootstrap-t interval. For 44 prompts,
  6 to 100 % of which have a lognormal activation, percentile, BCa and
  Student's intervals cover a shifted mean in 63-87 % of cases instead of 95
  (the long tail is seldom drawn), the bootstrap-t in 84-91; it in turn covers
  zero in 86-92 % only, where Student's has 96-100. The hull has the better of
  both.

  Args:
    shift_FR: float32, each resample's estimate − the estimate.
    residual_GF: float32, z_g − estimate · n_g.
    n_G: float32, rows of each group.
    error_F: standard error of the estimate.
    weight_RG: the resamples.
    confidence: of the interval.
  """
  groups = len(n_G)
  # Σ w (z − n e*)² of a resample, from residuals to avoid cancellation.
  squares_FR = (residual_GF**2).T @ weight_RG.T
  spread_FR = shift_FR * (weight_RG @ n_G**2)[None, :]
  spread_FR -= 2 * ((residual_GF * n_G[:, None]).T @ weight_RG.T)
  spread_FR *= shift_FR
  spread_FR += squares_FR
  flat_FR = spread_FR <= _NO_SPREAD * squares_FR
  np.copyto(spread_FR, 1, where=flat_FR)
  rows_R = weight_RG @ n_G * np.float32(np.sqrt((groups - 1) / groups))
  t_FR = shift_FR * rows_R[None, :]
  t_FR /= np.sqrt(spread_FR, out=spread_FR)
  # A resample of copies of silent groups has no spread: no more than Student.
  edge = np.float32(t_quantile(confidence, groups - 1))
  np.copyto(t_FR, np.sign(shift_FR) * edge, where=flat_FR)
  t_low_F, t_high_F = tails(t_FR, (1 - confidence) / 2)
  return (
    -np.maximum(t_high_F, edge) * error_F,
    np.maximum(-t_low_F, edge) * error_F,
  )
