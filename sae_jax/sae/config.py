# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a dictionary is and how it is trained, as numbers."""

import dataclasses
import math

from sae_jax import errors

MATMUL_DTYPES = ("bfloat16", "float32")
# Saturating int32 counters must be able to reach the threshold.
_MAX_DEAD_AFTER = 2**31 - 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaeConfig:
  """A TopK autoencoder with AuxK (Gao et al. 2024, arXiv:2406.04093)."""

  latents: int  # F
  k: int  # active latents per row, K
  aux_k: int | None = None  # None: d_model // 2, at most F
  aux_coefficient: float = 1 / 32  # 0 turns AuxK off
  dead_after_tokens: int = 10_000_000  # tokens without firing
  decoder_bias: str = "geometric_median"  # initial b_dec; or "mean"
  # How the dense products are multiplied; sums are float32 either way. bfloat16
  # nearly halves the encoder's time on CPUs too, and changes 0.4 % of the
  # selected latents (random rows; D=576, F=16384, K=32).
  matmul_dtype: str = "bfloat16"  # or "float32"
  # None: the exact top-k. Else an approximate one on TPUs, which expects to
  # find this share of it; `train/topk_recall` is what it did find.
  recall_target: float | None = None
  # Of a crosscoder, whose `sources` follow from the stores: the first latents,
  # with the same decoder for all sources; then some of one source alone each.
  sources: int = 1
  shared_latents: int = 0
  exclusive_latents: tuple[int, ...] = ()  # a number for each source

  def __post_init__(self):
    if self.latents < 1:
      raise errors.InputError(f"sae.latents={self.latents}: need at least 1")
    if not 1 <= self.k <= self.latents:
      raise errors.InputError(
        f"sae.k={self.k}: need 1 <= k <= latents ({self.latents})"
      )
    if self.aux_k is not None and not 1 <= self.aux_k <= self.latents:
      raise errors.InputError(
        f"sae.aux_k={self.aux_k}: need 1 <= aux_k <= latents"
        f" ({self.latents}), or None for half the model's width"
      )
    if not (math.isfinite(self.aux_coefficient) and self.aux_coefficient >= 0):
      raise errors.InputError(
        f"sae.aux_coefficient={self.aux_coefficient}: need a number >= 0"
      )
    if not 1 <= self.dead_after_tokens <= _MAX_DEAD_AFTER:
      raise errors.InputError(
        f"sae.dead_after_tokens={self.dead_after_tokens}: need 1 to"
        f" {_MAX_DEAD_AFTER}"
      )
    if self.decoder_bias not in ("geometric_median", "mean"):
      raise errors.InputError(
        f"sae.decoder_bias={self.decoder_bias!r}: choose 'geometric_median' or"
        " 'mean'"
      )
    if self.matmul_dtype not in MATMUL_DTYPES:
      raise errors.InputError(
        f"sae.matmul_dtype={self.matmul_dtype!r}: choose one of {MATMUL_DTYPES}"
      )
    if self.recall_target is not None and not 0 < self.recall_target < 1:
      raise errors.InputError(
        f"sae.recall_target={self.recall_target}: need a number between 0 and"
        " 1, or None for the exact top-k"
      )
    if self.sources < 1:
      raise errors.InputError(f"sae.sources={self.sources}: need at least 1")
    if min(self.shared_latents, *self.exclusive_latents, 0) < 0:
      raise errors.InputError(
        f"sae.shared_latents={self.shared_latents},"
        f" sae.exclusive_latents={self.exclusive_latents}: need 0 or more"
      )

  def resolve_aux_k(self, d_model: int) -> int:
    """AuxK's latents per row: half the model's width by default (App. A.2)."""
    return min(self.aux_k or max(1, d_model // 2), self.latents)
