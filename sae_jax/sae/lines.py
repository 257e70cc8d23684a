# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Pairs of rows and latents, in lines of a few places.

All pairs of a line are of one row and one level (`nested`). The sparse
operations take a line for a row, so that a row may have any number of pairs
and every pair is read once.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Runs:
  """Pairs in one long list, where those of a row and a level are neighbours."""

  values_N: jax.Array
  indices_N: jax.Array
  start_S: jax.Array  # of a run in the list
  count_S: jax.Array  # its pairs
  row_S: jax.Array
  level_S: jax.Array


def runs(
  values_RC: jax.Array,
  indices_RC: jax.Array,
  level_RC: jax.Array,
  row_R: jax.Array,
  count: int,
  *,
  in_order: bool = False,
) -> Runs:
  """Sorts every row's pairs by level; level `count` is of what is no pair.

  Args:
    values_RC: of pairs, not negative.
    indices_RC: their latents.
    level_RC: their levels, int32.
    row_R: which row they are of.
    count: of levels.
    in_order: levels ascend already.
  """
  if not in_order:
    level_RC, values_RC, indices_RC = lax.sort(
      (level_RC, values_RC, indices_RC), num_keys=1, is_stable=True
    )
  rows, width = values_RC.shape
  level_G = jnp.arange(count, dtype=jnp.int32)
  count_RG = jnp.sum(
    level_RC[:, None, :] == level_G[None, :, None], axis=2, dtype=jnp.int32
  )
  first_R1 = width * jnp.arange(rows, dtype=jnp.int32)[:, None]
  start_RG = first_R1 + jnp.cumsum(count_RG, axis=1) - count_RG
  return Runs(
    values_RC.reshape(-1),
    indices_RC.reshape(-1),
    start_RG.reshape(-1),
    count_RG.reshape(-1),
    jnp.repeat(row_R, count),
    jnp.tile(level_G, rows),
  )


def join(one: Runs, other: Runs) -> Runs:
  """Both lists, one after the other."""
  moved = dataclasses.replace(
    other, start_S=other.start_S + one.values_N.shape[0]
  )
  return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), one, moved)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lines:
  """Pairs in lines of P places; places without a pair have the value 0."""

  values_LP: jax.Array
  indices_LP: jax.Array
  row_L: jax.Array
  level_L: jax.Array


def pack(
  found: Runs, *, rows: int, per_row: int, levels: int
) -> tuple[Lines, jax.Array]:
  """Lines of all pairs, and whether all have found a place.

  They have if there are no more than `per_row` on average, whatever single rows
  have. A run leaves half a line empty on average, which costs time; more lines
  cost memory, a row of x and one of y each.

  Args:
    found: the pairs.
    rows: of the shard.
    per_row: pairs of a row, on average.
    levels: how many runs a row may have.
  """
  places = -(-per_row // (2 if levels == 1 else 4))
  lines = rows * (per_row + levels * (places - 1)) // places
  needed_S = -(-found.count_S // places)
  stop_S = jnp.cumsum(needed_S)
  line_L = jnp.arange(lines, dtype=jnp.int32)
  run_L = jnp.searchsorted(stop_S, line_L, side="right").astype(jnp.int32)
  live_L = run_L < stop_S.shape[0]
  run_L = jnp.where(live_L, run_L, 0)
  begin_L = (line_L - (stop_S - needed_S)[run_L]) * places
  place_LP = begin_L[:, None] + jnp.arange(places, dtype=jnp.int32)[None, :]
  held_LP = live_L[:, None] & (place_LP < found.count_S[run_L][:, None])
  slot_LP = jnp.where(held_LP, found.start_S[run_L][:, None] + place_LP, 0)
  packed = Lines(
    values_LP=jnp.where(held_LP, found.values_N[slot_LP], 0),
    indices_LP=jnp.where(held_LP, found.indices_N[slot_LP], 0),
    row_L=found.row_S[run_L],
    level_L=found.level_S[run_L],
  )
  return packed, stop_S[-1] <= lines
