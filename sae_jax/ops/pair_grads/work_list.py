# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the kernel of `gather_sums_tpu` does, item by item.

An item is a tile of owners and a chunk of pairs that overlap. Both ascend, so
that every tile is finished and every chunk fetched once. Items are as many as
the active pairs make them, which is known when the program runs.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from sae_jax.ops.pair_grads import active_pairs

# Two halves of the tiles, one for each core of a v4, v5p or v7x chip.
PARTS = 2


@dataclasses.dataclass(frozen=True)
class Sizes:
  """`chunk` pairs are in flight at once, `tile` owners are finished at once."""

  chunk: int
  tile: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Items:
  """The work list; `tile` and `chunk` of an item, `PARTS` ranges of items."""

  tile_I: jax.Array
  chunk_I: jax.Array
  bounds: jax.Array  # [PARTS + 1]
  longest: jax.Array  # items of the longer part


def make_items(pairs: active_pairs.Pairs, owners: int, sizes: Sizes) -> Items:
  """Every tile of owners with each chunk that has pairs of it, at least one."""
  tiles = pl.cdiv(owners, sizes.tile)
  chunks = pairs.owner_P.shape[0] // sizes.chunk
  edge_T = sizes.tile * jnp.arange(tiles + 1, dtype=jnp.int32)
  edge_T = jnp.searchsorted(pairs.owner_P, edge_T).astype(jnp.int32)
  # The last tile may reach past the last owner, to where nobody owns pairs.
  edge_T = jnp.minimum(edge_T, pairs.count)
  start_T, stop_T = edge_T[:-1], edge_T[1:]
  last = jnp.maximum(pairs.count - 1, 0) // sizes.chunk
  first_T = jnp.minimum(start_T // sizes.chunk, last)
  final_T = jnp.where(stop_T > start_T, (stop_T - 1) // sizes.chunk, first_T)
  end_T = jnp.cumsum(final_T - first_T + 1)
  item_I = jnp.arange(tiles + chunks, dtype=jnp.int32)
  tile_I = jnp.searchsorted(end_T, item_I, side="right").astype(jnp.int32)
  tile_I = jnp.minimum(tile_I, tiles - 1)
  begin_T = end_T - (final_T - first_T + 1)
  chunk_I = first_T[tile_I] + item_I - begin_T[tile_I]
  bounds = jnp.stack([jnp.zeros_like(last), end_T[(tiles - 1) // 2], end_T[-1]])
  return Items(
    tile_I=tile_I,
    chunk_I=jnp.minimum(chunk_I, last),
    bounds=bounds,
    longest=jnp.max(jnp.diff(bounds)),
  )
