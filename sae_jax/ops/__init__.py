# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Fused operations of a sparse autoencoder, one folder per operation."""

from sae_jax.ops.pair_grads.api import pair_grads, pair_sums
from sae_jax.ops.sparse_decode.api import residual, row_dots, sparse_decode
from sae_jax.ops.sphere_adam.api import sphere_adam
from sae_jax.ops.topk_encode.api import topk_encode
from sae_jax.ops.weight_grads.api import weight_grads

__all__ = [
  "pair_grads",
  "pair_sums",
  "residual",
  "row_dots",
  "sparse_decode",
  "sphere_adam",
  "topk_encode",
  "weight_grads",
]
