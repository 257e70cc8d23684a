# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Works on every platform: pairs sorted by latent, summed in blocks.

A block of 256 consecutive pairs is reduced to one row per distinct latent by a
product with a 0/1 matrix, then added to those latents' rows. Blocks are taken
in order and latents are distinct inside one, so no two additions race and the
result does not change from run to run. Exact at any skew.

Pairs with a coefficient of zero sort last and their blocks are not run: where
latents are split over n shards, most of a shard's B·K slots are such.
"""

import jax
import jax.numpy as jnp
from jax import lax

_BLOCK = 256  # pairs; one tile of a matrix unit on each side


def _sorted_pairs(coef_BK, indices_BK, latents):
  """Pairs by (latent, row), padded with zero coefficients to whole blocks."""
  batch, k = coef_BK.shape
  pairs = batch * k
  padding = -pairs % _BLOCK
  # What adds nothing sorts last: its latent is F, one past the end.
  indices_BK = jnp.where(coef_BK != 0, indices_BK, latents)
  latent_P = jnp.pad(
    indices_BK.reshape(-1), (0, padding), constant_values=latents
  )
  coef_P = jnp.pad(coef_BK.reshape(-1), (0, padding))
  pair_P = jnp.arange(pairs + padding, dtype=jnp.int32)
  latent_P, pair_P = lax.sort((latent_P, pair_P), num_keys=1, is_stable=True)
  row_P = jnp.minimum(pair_P // k, batch - 1)
  return latent_P, row_P, coef_P[pair_P]


def _add_block(out_FD, latent_P, rows_PD, latents):
  """Adds a block's per-latent sums to `out`; latent F and above are dropped."""
  starts_P = jnp.pad(latent_P[1:] != latent_P[:-1], (1, 0))
  segment_P = jnp.cumsum(starts_P.astype(jnp.int32))
  place_U = jnp.arange(_BLOCK, dtype=jnp.int32)
  member_UP = (place_U[:, None] == segment_P[None, :]).astype(rows_PD.dtype)
  sums_UD = jnp.dot(member_UP, rows_PD, precision=lax.Precision.HIGHEST)
  # Segments that do not exist get distinct places past the end.
  owner_U = (latents + place_U).at[segment_P].set(latent_P)
  owner_U = jnp.where(owner_U >= latents, latents + place_U, owner_U)
  return out_FD.at[owner_U].add(sums_UD, mode="drop", unique_indices=True)


def pair_grads(
  coef_BK: jax.Array, indices_BK: jax.Array, x_BD: jax.Array, latents: int
) -> jax.Array:
  """See `api.pair_grads`."""
  dtype = jnp.promote_types(coef_BK.dtype, jnp.float32)
  latent_P, row_P, coef_P = _sorted_pairs(coef_BK, indices_BK, latents)

  def add(block, out_FD):
    latent_P, row_P, coef_P = (
      lax.dynamic_slice_in_dim(a_P, block * _BLOCK, _BLOCK) for a_P in pairs
    )
    rows_PD = coef_P.astype(dtype)[:, None] * x_BD[row_P].astype(dtype)
    return _add_block(out_FD, latent_P, rows_PD, latents)

  pairs = (latent_P, row_P, coef_P)
  used = -(-jnp.sum(latent_P < latents, dtype=jnp.int32) // _BLOCK)
  out_FD = jnp.zeros((latents, x_BD.shape[1]), dtype)
  return lax.fori_loop(0, used, add, out_FD)


def pair_sums(
  coef_BK: jax.Array, indices_BK: jax.Array, latents: int
) -> jax.Array:
  """See `api.pair_sums`."""
  ones_B1 = jnp.ones((coef_BK.shape[0], 1), coef_BK.dtype)
  return pair_grads(coef_BK, indices_BK, ones_B1, latents)[:, 0]
