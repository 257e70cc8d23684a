# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Resamples of groups: bootstrap weights, sign flips, and who stays on top.

A group (prompt or document) is drawn whole, because its tokens are not
independent. Every draw is a function of the seed alone, so all blocks of
latents, all methods and every resumed run see the same resamples. What is
computed per resample is float32: rounding is far below the resamples' own
noise, and half the memory.
"""

import dataclasses

import numpy as np
from scipy import special

from sae_jax.judge import bootstrap


@dataclasses.dataclass(frozen=True)
class Draws:
  """Resamples of G groups (and of A arms).

  Attributes:
    weight_RG: how often each group is drawn (bootstrap).
    arm_RA: how often each arm is drawn; their product with `weight_RG` is the
      pigeonhole bootstrap (Owen 2007, doi:10.1214/07-AOAS122).
    sign_RG: -1 or +1; exchanges the two sides of a paired difference.
  """

  weight_RG: np.ndarray
  arm_RA: np.ndarray
  sign_RG: np.ndarray


def draw(seed: int, groups: int, arms: int, resamples: int) -> Draws:
  """Draws from one counter-based generator per kind of resample."""

  def generator(kind: int) -> np.random.Generator:
    key = np.array([seed % 2**64, kind], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))

  def counts(kind: int, size: int) -> np.ndarray:
    even = np.full(size, 1 / size)
    return generator(kind).multinomial(size, even, resamples).astype(np.float32)

  bits_RG = generator(2).integers(0, 2, (resamples, groups), np.int8)
  sign_RG = (2 * bits_RG - 1).astype(np.float32)
  return Draws(counts(0, groups), counts(1, arms), sign_RG)


def student_p(t: np.ndarray, dof: np.ndarray | float) -> np.ndarray:
  """Two-sided p of Student's t; at least the smallest normal float32."""
  p = 2 * special.stdtr(dof, -np.abs(t))
  return np.maximum(p, np.finfo(np.float32).tiny)


def expanded_tail(confidence: float, groups: int) -> float:
  """The tail of a percentile interval that small samples need.

  A percentile interval is narrow by √((G−1)/G) and takes the normal's tail for
  Student's; this undoes both (Hesterberg 2015, arXiv 1411.5279).
  """
  t = bootstrap.t_quantile(confidence, groups - 1)
  return float(special.ndtr(-np.sqrt(groups / (groups - 1)) * t))


class Top:
  """In each resample, the `count` latents of largest value above 0."""

  def __init__(self, count: int, resamples: int):
    self._value_NR = np.zeros((count, resamples), np.float32)
    self._latent_NR = np.full((count, resamples), -1, np.int64)

  def offer(self, value_FR: np.ndarray, latent_F: np.ndarray) -> None:
    """Takes in more latents; one that only equals the last is left out."""
    count = len(self._value_NR)
    enters_F = (value_FR > self._value_NR.min(0)[None, :]).any(1)
    value_CR = np.concatenate([self._value_NR, value_FR[enters_F]])
    if len(value_CR) == count:
      return
    latent_CR = np.concatenate(
      [
        self._latent_NR,
        np.broadcast_to(latent_F[enters_F][:, None], value_CR[count:].shape),
      ]
    )
    best_NR = np.argpartition(value_CR, -count, axis=0)[-count:]
    self._value_NR = np.take_along_axis(value_CR, best_NR, axis=0)
    self._latent_NR = np.take_along_axis(latent_CR, best_NR, axis=0)

  def share(self, latents: int) -> np.ndarray:
    """The share of resamples in which each latent is among them, [F]."""
    inside = self._latent_NR[self._value_NR > 0]
    return np.bincount(inside, minlength=latents) / self._value_NR.shape[1]
