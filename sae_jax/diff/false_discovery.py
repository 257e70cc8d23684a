# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How many of very many tests to believe (Benjamini & Hochberg 1995)."""

import numpy as np


def q_values(p_F: np.ndarray, tested_F: np.ndarray) -> np.ndarray:
  """q-values over the tested latents, [F]; 1 for the others.

  Which latents are tested depends on where their difference is zero and not on
  its sign, so choosing them costs nothing under the null.
  """
  q_F = np.ones(len(p_F))
  at_M = np.flatnonzero(tested_F)
  order_M = at_M[np.argsort(p_F[at_M], kind="stable")]
  count = len(order_M)
  steps_M = p_F[order_M] * count / np.arange(1, count + 1)
  q_F[order_M] = np.minimum.accumulate(steps_M[::-1])[::-1].clip(max=1)
  return q_F


def discoveries(small_p_M: np.ndarray, tested: int, q: float) -> int:
  """How many of `tested` latents have a q-value <= q.

  Args:
    small_p_M: at least all p-values <= q; no other can be among them.
    tested: size of the family.
    q: false discovery rate.
  """
  p_M = np.sort(small_p_M)
  passes = np.flatnonzero(p_M * tested <= q * np.arange(1, len(p_M) + 1))
  return int(passes[-1]) + 1 if len(passes) else 0
