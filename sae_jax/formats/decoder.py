# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Directions of a dictionary that may be larger than memory."""

import pathlib
from typing import Any

import numpy as np

from sae_jax import errors, sae


class Decoder:
  """The decoder of a dictionary on disk, read row by row.

  For what needs a few directions only.
  """

  def __init__(self, dictionary: sae.Sae, path: pathlib.Path):
    """`dictionary` may be memory maps; `path` is named in messages."""
    self.latents: int = dictionary.latents
    self.d_model: int = dictionary.d_out  # the width of the directions
    self.metadata: sae.Metadata = dictionary.metadata
    self._w_dec_FD = dictionary.params.w_dec_FD
    self._path = path

  def units(self, latents_N: Any) -> np.ndarray:
    """Directions of latents, [N, D] float32 of length 1.

    Raises:
      errors.InputError: there is no such latent, or its row is zero or not
        finite.
    """
    latents_N = np.asarray(latents_N, np.int64)
    outside = latents_N[(latents_N < 0) | (latents_N >= self.latents)]
    if outside.size:
      raise errors.InputError(
        f"{self._path} has no latent {outside[0]}; its latents are 0 to"
        f" {self.latents - 1}"
      )
    rows_ND = np.asarray(self._w_dec_FD[latents_N], np.float32)
    norm_N1 = np.linalg.norm(rows_ND.astype(np.float64), axis=1, keepdims=True)
    wrong = np.flatnonzero(~((norm_N1[:, 0] > 0) & np.isfinite(norm_N1[:, 0])))
    if wrong.size:
      raise errors.InputError(
        f"{self._path}: latent {latents_N[wrong[0]]} has a decoder row of"
        f" length {norm_N1[wrong[0], 0]}, which is no direction"
      )
    return (rows_ND / norm_N1).astype(np.float32)
