# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Decode and row products of the active pairs only, on any platform.

Where latents are split over n shards, a shard holds about 1/n of every row's
winners and the other slots are zero; gathering all of them reads n times too
much. Rows are ordered by their last active slot, so that a chunk of them ends
where its longest row does, whatever the others have. No scatter and no sort of
pairs; a row's pairs are added in order: deterministic.

A top-k with a ReLU has its active slots first. Then at most `_COLUMNS` - 1 of a
row are gathered in vain, and the rows take one more pass over [B, D] to be
put in order. That pays below half of the slots; above, all are gathered.
"""

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops import rows
from sae_jax.ops.sparse_decode import chunked, reference

_COLUMNS = 4  # slots of a row that are gathered at once
_ELEMENTS = 1 << 24  # gathered elements of a chunk: 64 MiB of float32


def sparse_decode(
  values_BK: jax.Array, indices_BK: jax.Array, w_dec_FD: jax.Array
) -> jax.Array:
  """See `api.sparse_decode`."""
  width = w_dec_FD.shape[1]

  def of_rows(last_R, values_RK, indices_RK):
    def add(group, out_RD):
      values_RC = _columns(values_RK, group)
      indices_RC = _columns(indices_RK, group)
      return out_RD + reference.sparse_decode(values_RC, indices_RC, w_dec_FD)

    dtype = jnp.promote_types(values_RK.dtype, jnp.float32)
    out_RD = jnp.zeros((values_RK.shape[0], width), dtype)
    return lax.fori_loop(0, _groups(last_R), add, out_RD)

  def few():
    arrays = _padded(values_BK), _padded(indices_BK)
    return _by_length(of_rows, values_BK, width, *arrays)

  return lax.cond(
    _are_few(values_BK),
    few,
    lambda: chunked.sparse_decode_xla(values_BK, indices_BK, w_dec_FD),
  )


def active_row_dots(
  x_BD: jax.Array, indices_BK: jax.Array, w_FD: jax.Array, values_BK: jax.Array
) -> jax.Array:
  """`api.row_dots` where `values` are not zero; zero elsewhere."""
  k = indices_BK.shape[1]

  def of_rows(last_R, x_RD, indices_RK):
    def put(group, dots_RK):
      dots_RC = reference.row_dots(x_RD, _columns(indices_RK, group), w_FD)
      return lax.dynamic_update_slice_in_dim(
        dots_RK, dots_RC, group * _COLUMNS, 1
      )

    dtype = jnp.promote_types(x_RD.dtype, jnp.float32)
    return lax.fori_loop(
      0, _groups(last_R), put, jnp.zeros(indices_RK.shape, dtype)
    )

  def few():
    arrays = x_BD, _padded(indices_BK)
    return _by_length(of_rows, values_BK, w_FD.shape[1], *arrays)[:, :k]

  dots_BK = lax.cond(
    _are_few(values_BK),
    few,
    lambda: chunked.row_dots_xla(x_BD, indices_BK, w_FD),
  )
  return jnp.where(values_BK != 0, dots_BK, 0)


def _are_few(values_BK):
  return 2 * jnp.sum(values_BK != 0, dtype=jnp.int32) <= values_BK.size


def _padded(array_BK):
  return jnp.pad(array_BK, ((0, 0), (0, -array_BK.shape[1] % _COLUMNS)))


def _columns(array_RK, group):
  return lax.dynamic_slice_in_dim(array_RK, group * _COLUMNS, _COLUMNS, 1)


def _groups(last_R):
  return -(-jnp.max(last_R) // _COLUMNS)


def _by_length(of_rows, values_BK, width, *arrays):
  """`of_rows(last, ...)` on chunks of rows whose last active slots are close.

  `last` counts the slots up to and with a row's last active one.
  """
  place_BK = lax.broadcasted_iota(jnp.int32, values_BK.shape, 1)
  last_B = jnp.max(jnp.where(values_BK != 0, place_BK + 1, 0), axis=1)
  order_B = jnp.argsort(last_B, descending=True)
  chunk = max(1, _ELEMENTS // (_COLUMNS * width))
  out = rows.map_chunks(
    of_rows, chunk, *(a[order_B] for a in (last_B, *arrays))
  )
  return out[jnp.argsort(order_B)]
