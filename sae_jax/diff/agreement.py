# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How far two methods say the same about the same latents."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax.diff import table


def matrix(parts: Sequence[table.Part], top: int) -> dict[str, Any]:
  """Spearman correlation of scores and overlap of the `top` by |score|.

  Only parts about the same dictionary's latents are compared. A correlation
  takes the latents to which both give a score other than 0: the many that
  never fire would agree whatever the methods do. None: fewer than 3 of them.
  """
  same = [part for part in parts if part.dictionary == "sae"]
  scores = [np.asarray(part.columns["score"], np.float64) for part in same]
  best = [_best(score_F, top) for score_F in scores]
  return {
    "labels": [part.name for part in same],
    "top": top,
    "spearman": [[_spearman(a, b) for b in scores] for a in scores],
    "overlap": [
      [len(a & b) / max(1, min(len(a), len(b))) for b in best] for a in best
    ],
  }


def _best(score_F: np.ndarray, top: int) -> set[int]:
  key_F = np.nan_to_num(np.abs(score_F))
  order_N = np.argsort(-key_F, kind="stable")[:top]
  return set(order_N[key_F[order_N] > 0].tolist())


def _spearman(a_F: np.ndarray, b_F: np.ndarray) -> float | None:
  both_F = np.isfinite(a_F) & np.isfinite(b_F) & (a_F != 0) & (b_F != 0)
  if both_F.sum() < 3:
    return None
  a_N, b_N = _mean_ranks(a_F[both_F]), _mean_ranks(b_F[both_F])
  spread = float(a_N.std() * b_N.std())
  if spread == 0:
    return None
  return float(((a_N - a_N.mean()) * (b_N - b_N.mean())).mean() / spread)


def _mean_ranks(x_N: np.ndarray) -> np.ndarray:
  """Ranks from 0; equal values share the mean of theirs."""
  _, group_N, count = np.unique(x_N, return_inverse=True, return_counts=True)
  last = np.cumsum(count)
  return (last - (count + 1) / 2)[group_N]
