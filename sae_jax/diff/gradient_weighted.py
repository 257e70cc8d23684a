# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A difference of latents times what each latent does to a paired margin.

Both factors are means over prompts, and both are uncertain: the product of the
two means is linearised, so that one test answers for both.
"""

import numpy as np

from sae_jax.diff import latent_means, margin, statistics
from sae_jax.diff import problem as problem_lib

_BLOCK = 4096  # latents at a time


class Weighted:
  """Sums over groups of difference × gradient · decoder row.

  With Δ the difference and γ the mean over pairs of a latent's γ_g, the product
  Δγ has to first order the sums z_g γ + Δ N w_g (γ_g − γ) / Σ w over groups of
  n_g rows (N together) and w_g pairs; they add up to N Δ γ.

  Attributes:
    gradient_D: mean gradient of the base model's margin, float64.
    gradient_F: its product with every decoder row, γ.
  """

  def __init__(
    self,
    problem: problem_lib.Problem,
    difference: statistics.Block,
    n_G: np.ndarray,
  ):
    self._difference = difference
    self._rows = n_G.sum()
    self._w_dec_FD = problem.dictionary.params.w_dec_FD
    grad_PD = np.asarray(margin.group_gradients(problem, "base"))
    group_P, weight_P = _groups(problem)
    self._share_P = weight_P / weight_P.sum()
    self.gradient_D = self._share_P @ grad_PD
    self._deviation_PD = grad_PD - self.gradient_D
    # Documents of stores are no prompts: there only the difference is sampled.
    same = problem.evidence.kind == "prompts"
    self._group_P = group_P if same else group_P[:0]
    latents = problem.dictionary.latents
    self.gradient_F = np.concatenate(
      [
        self._project(
          self.gradient_D[None], start, min(start + _BLOCK, latents)
        )[0]
        for start in range(0, latents, _BLOCK)
      ]
    )

  def block(self, start: int, stop: int) -> np.ndarray:
    """Sums over groups of latents [start, stop), for `statistics`."""
    z_GF = np.asarray(self._difference(start, stop), np.float64)
    out_GF = z_GF * self.gradient_F[None, start:stop]
    if len(self._group_P):
      total_F = z_GF.sum(0)  # N Δ
      part_PF = self._project(self._deviation_PD, start, stop)
      part_PF *= self._share_P[:, None] * total_F[None, :]
      out_GF[self._group_P] += part_PF
    return out_GF

  def _project(self, x_GD: np.ndarray, start: int, stop: int) -> np.ndarray:
    return latent_means.projections(self._w_dec_FD, x_GD, start, stop)


def _groups(problem: problem_lib.Problem) -> tuple[np.ndarray, np.ndarray]:
  """Groups of the rows of `margin.group_gradients`, and pairs in each."""
  pair_N = np.asarray(problem.pairs())
  prompts = problem.prompts.prompts if problem.prompts is not None else ()
  count = min(problem.config.groups, len(prompts))
  group_P, weight_P = np.unique(pair_N % count, return_counts=True)
  return group_P, weight_P.astype(np.float64)
