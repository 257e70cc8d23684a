# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The dense definition: all pre-activations, then `lax.top_k`."""

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops.topk_encode import candidates as candidates_lib


def products(x_BD: jax.Array, w_enc_FD: jax.Array) -> jax.Array:
  """`x · w_encᵀ`, [B, F], accumulated in float32 (or float64).

  The inputs' dtype decides how the product is computed: bfloat16 operands are
  multiplied as such, float32 operands at full precision on every platform
  (accelerators otherwise round them to bfloat16 or TF32).
  """
  return lax.dot_general(
    x_BD,
    w_enc_FD,
    (((1,), (1,)), ((), ())),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.promote_types(x_BD.dtype, jnp.float32),
  )


def add_bias(products: jax.Array, bias: jax.Array) -> jax.Array:
  """Pre-activations of products, with NaNs that a top-k sorts first."""
  pre = products + bias.astype(products.dtype)
  # x86 makes NaNs with the sign bit set, and a top-k sorts those last.
  return jnp.where(jnp.isnan(pre), jnp.nan, pre)


def pre_activations(
  x_BD: jax.Array, w_enc_FD: jax.Array, b_enc_F: jax.Array
) -> jax.Array:
  """`x · w_encᵀ + b_enc`, [B, F]; see `products`."""
  return add_bias(products(x_BD, w_enc_FD), b_enc_F[None, :])


def candidates(
  x_BD: jax.Array, w_enc_FD: jax.Array, b_enc_F: jax.Array, k: int
) -> candidates_lib.Candidates:
  """See `api.topk_encode`; writes [B, F]."""
  return candidates_lib.Candidates(
    *lax.top_k(pre_activations(x_BD, w_enc_FD, b_enc_F), k)
  )
