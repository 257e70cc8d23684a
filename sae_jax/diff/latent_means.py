# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Mean activations of latents by model, after or before the top-k.

After it, activations are encoded row by row. Before it they are linear in x, so
their sums follow from those of x: Σ pre = w_enc·(Σ x − n b_dec) + n b_enc.
"""

import functools

import jax
import numpy as np
from jax import lax

from sae_jax import sae
from sae_jax.diff import problem as problem_lib
from sae_jax.diff import statistics, sums

_BLOCK = 4096  # latents at a time


class Means:
  """Sums of latents over groups by model, encoded when first asked for."""

  def __init__(self, problem: problem_lib.Problem):
    self._problem = problem
    self._rows = problem.evidence.rows
    self._means: dict[str, np.ndarray] = {}

  @property
  def linear(self) -> bool:
    """Whether activations are those before the top-k."""
    return self._problem.config.activation == "pre"

  def difference(self, one: str, other: str) -> statistics.Block:
    """Sums of `one` − `other`, float64 [G, F'] of a range of latents."""
    if self.linear:
      x_GD = self._activations(one) - self._activations(other)
      return functools.partial(projections, self._params.w_enc_FD, x_GD)
    one_GF, other_GF = self._latents(one).sums_GF, self._latents(other).sums_GF
    return lambda start, stop: one_GF[:, start:stop] - other_GF[:, start:stop]

  def mean(self, name: str) -> np.ndarray:
    """Mean activation over the rows in scope, float64 [F]."""
    if name not in self._means:
      if self.linear:
        total_F = self._linear_total(name)
      else:
        total_F = sums.total(self._latents(name).sums_GF)
      self._means[name] = total_F / self._rows
    return self._means[name]

  def fires(self, name: str) -> np.ndarray:
    """Share of rows on which each latent is among the top-k, [F]."""
    return sums.total(self._latents(name).fires_GF) / self._rows

  def direction(self, one: str, other: str) -> np.ndarray:
    """Difference of the mean activations, float64 [D]."""
    x_GD = self._activations(one) - self._activations(other)
    return x_GD.sum(0) / self._rows

  @property
  def _params(self) -> sae.Params:
    return self._problem.dictionary.params

  def _latents(self, name: str) -> sums.LatentSums:
    return sums.latent_sums(self._problem, name)

  def _activations(self, name: str) -> np.ndarray:
    return sums.activation_sums(self._problem, name)

  def _linear_total(self, name: str) -> np.ndarray:
    p = self._params
    b_dec_D = np.asarray(p.b_dec_D, np.float64)
    x_D = self._activations(name).sum(0) - self._rows * b_dec_D
    blocks = [
      projections(p.w_enc_FD, x_D[None], start, min(start + _BLOCK, p.latents))
      for start in range(0, p.latents, _BLOCK)
    ]
    bias_F = np.asarray(p.b_enc_F, np.float64)
    return np.concatenate(blocks, axis=1)[0] + self._rows * bias_F


def projections(
  w_FD: jax.Array, x_GD: np.ndarray, start: int, stop: int
) -> np.ndarray:
  """x · w_l of latents [start, stop), float64 [G, stop − start]."""
  w_fD = np.asarray(_rows(w_FD, start, size=stop - start), np.float64)
  return x_GD @ w_fD.T


@functools.partial(jax.jit, static_argnames=("size",))
def _rows(w_FD: jax.Array, start: jax.Array, *, size: int) -> jax.Array:
  return lax.dynamic_slice_in_dim(w_FD, start, size)
