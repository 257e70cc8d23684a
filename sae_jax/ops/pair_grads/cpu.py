# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""CPU: one batch row after another, each updating its K latents in place.

The K latents of a row are distinct, so a row's update needs no order; rows are
taken in order. That fixes every sum, and no [B, K, D] or sort is needed. It
measured 2.5 times faster than the same scatter without the unique promise.
"""

import jax
import jax.numpy as jnp
from jax import lax


def pair_grads(
  coef_BK: jax.Array, indices_BK: jax.Array, x_BD: jax.Array, latents: int
) -> jax.Array:
  """See `api.pair_grads`."""
  dtype = jnp.promote_types(coef_BK.dtype, jnp.float32)
  x_BD = x_BD.astype(dtype)

  def add_row(grad_FD, row):
    coef_K, indices_K, x_D = row
    grad_FD = grad_FD.at[indices_K].add(
      coef_K.astype(dtype)[:, None] * x_D[None, :],
      mode="promise_in_bounds",
      unique_indices=True,
    )
    return grad_FD, None

  # A zero that XLA cannot fold. Of two calls that start from constant zeros it
  # makes one array, which both loops then copy.
  zero = jnp.minimum(jnp.abs(jnp.nan_to_num(coef_BK[0, 0])), 0).astype(dtype)
  grad_FD = jnp.broadcast_to(zero, (latents, x_BD.shape[1]))
  return lax.scan(add_row, grad_FD, (coef_BK, indices_BK, x_BD))[0]


def pair_sums(
  coef_BK: jax.Array, indices_BK: jax.Array, latents: int
) -> jax.Array:
  """See `api.pair_sums`; XLA's CPU scatter is sequential, hence in order."""
  dtype = jnp.promote_types(coef_BK.dtype, jnp.float32)
  return (
    jnp.zeros((latents,), dtype)
    .at[indices_BK.reshape(-1)]
    .add(coef_BK.reshape(-1).astype(dtype), mode="promise_in_bounds")
  )
