# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Decode and row products of the active pairs only, on any platform.

Where latents are split over n shards, a shard holds about 1/n of every row's
winners and the other slots are zero; gathering all of them reads n times too
much. Rows are ordered by how many active pairs they have, so that a chunk of
them ends at the count of its first row, whatever the others have. No scatter
and no sort of pairs; a row's pairs are added in order: deterministic.

Per chunk at most `_COLUMNS` - 1 slots a row are gathered in vain, and the
result is put back in order by one more pass over [B, D]. That pays below half
of the slots; above, all slots are gathered.
"""

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops import rows
from sae_jax.ops.pair_grads import active_pairs
from sae_jax.ops.sparse_decode import chunked, reference

_COLUMNS = 4  # slots of a row that are gathered at once
_ELEMENTS = 1 << 24  # gathered elements of a chunk: 64 MiB of float32


def sparse_decode(
  values_BK: jax.Array, indices_BK: jax.Array, w_dec_FD: jax.Array
) -> jax.Array:
  """See `api.sparse_decode`."""

  def few(values_BK, indices_BK):
    values_BK, indices_BK = active_pairs.to_front(values_BK, indices_BK)

    def add(out_RD, values_RC, indices_RC):
      return out_RD + reference.sparse_decode(values_RC, indices_RC, w_dec_FD)

    def of_rows(values_RK, indices_RK):
      count = jnp.max(jnp.sum(values_RK != 0, axis=1))
      dtype = jnp.promote_types(values_RK.dtype, jnp.float32)
      out_RD = jnp.zeros((values_RK.shape[0], w_dec_FD.shape[1]), dtype)
      return lax.fori_loop(
        0,
        -(-count // _COLUMNS),
        lambda j, out_RD: add(
          out_RD, _columns(values_RK, j), _columns(indices_RK, j)
        ),
        out_RD,
      )

    return _by_count(of_rows, values_BK, indices_BK, w_dec_FD.shape[1])

  return lax.cond(
    _are_few(values_BK),
    few,
    lambda v, i: chunked.sparse_decode_xla(v, i, w_dec_FD),
    *(values_BK, indices_BK),
  )


def _are_few(values_BK):
  return 2 * jnp.sum(values_BK != 0, dtype=jnp.int32) <= values_BK.size


def _columns(array_RK, group):
  return lax.dynamic_slice_in_dim(array_RK, group * _COLUMNS, _COLUMNS, 1)


def _by_count(of_rows, values_BK, indices_BK, width):
  """`of_rows` on chunks of rows with equally many active pairs, in order."""
  padding = (0, 0), (0, -values_BK.shape[1] % _COLUMNS)
  values_BK, indices_BK = (jnp.pad(a, padding) for a in (values_BK, indices_BK))
  order_B = jnp.argsort(jnp.sum(values_BK != 0, axis=1), descending=True)
  chunk = max(1, _ELEMENTS // (_COLUMNS * width))
  out_BD = rows.map_chunks(
    of_rows, chunk, values_BK[order_B], indices_BK[order_B]
  )
  return out_BD[jnp.argsort(order_B)]
