# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The definitions: a dense [B, F] coefficient matrix and one product."""

import jax
import jax.numpy as jnp
from jax import lax


def _dense(coef_BK, indices_BK, latents):
  batch = coef_BK.shape[0]
  dtype = jnp.promote_types(coef_BK.dtype, jnp.float32)
  row_B1 = jnp.arange(batch)[:, None]
  return jnp.zeros((batch, latents), dtype).at[row_B1, indices_BK].add(coef_BK)


def pair_grads(
  coef_BK: jax.Array, indices_BK: jax.Array, x_BD: jax.Array, latents: int
) -> jax.Array:
  """See `api.pair_grads`; writes [B, F]."""
  coef_BF = _dense(coef_BK, indices_BK, latents)
  return jnp.einsum(
    "bf,bd->fd",
    coef_BF,
    x_BD.astype(coef_BF.dtype),
    precision=lax.Precision.HIGHEST,
  )


def pair_sums(
  coef_BK: jax.Array, indices_BK: jax.Array, latents: int
) -> jax.Array:
  """See `api.pair_sums`; writes [B, F]."""
  return jnp.sum(_dense(coef_BK, indices_BK, latents), axis=0)
