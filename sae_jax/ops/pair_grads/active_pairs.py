# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists of the pairs (row, latent) whose coefficient is not zero.

Where latents are split over n shards, a shard has B·K slots of which about
B·K/n hold a winner. Lists are built at the smallest of a few static capacities
that holds all active pairs; the last one holds every slot, so none is ever
lost, at any skew. A NaN is not zero: it stays in the list.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

# Owner of the places after the last active pair; sorts last.
NOBODY = 2**31 - 1

# Capacities are total slots over these: 32 and 8 shards have 1/32 and 1/8 of
# their slots active, give or take, hence a third more. On a TPU, compiling the
# sort of each one takes seconds, so there are few.
_FRACTIONS = (24, 6)
_SMALLEST = 4096  # slots; below that a list of all of them costs nothing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
  """`count` active pairs first, by (owner, source); the rest has no owner.

  Pair p adds `coef[p] · source_rows[source[p]]` to row `owner[p]` of a sum.
  """

  owner_P: jax.Array  # int32, ascending
  source_P: jax.Array  # int32; 0 where there is no pair
  coef_P: jax.Array  # float32; 0 where there is no pair
  count: jax.Array  # int32


def capacities(slots: int) -> tuple[int, ...]:
  """Static lengths of the list, ascending; the last one is `slots`."""
  partial = [-(-slots // fraction) for fraction in _FRACTIONS]
  return (*(size for size in partial if size >= _SMALLEST), slots)


def to_front(
  coef_BK: jax.Array, indices_BK: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Moves every row's active slots to its front; their order is kept.

  A top-k with a ReLU needs no move, as its values descend.
  """
  active_BK = coef_BK != 0
  k = coef_BK.shape[1]
  place_BK = lax.broadcasted_iota(jnp.int32, active_BK.shape, 1)

  def move(coef_BK, indices_BK):
    key_BK = jnp.where(active_BK, place_BK, k)
    _, *moved_BK = lax.sort(
      (key_BK, coef_BK, indices_BK), dimension=1, num_keys=1, is_stable=False
    )
    return tuple(moved_BK)

  return lax.cond(
    jnp.all(active_BK[:, 1:] <= active_BK[:, :-1]),
    lambda *arrays: arrays,
    move,
    *(coef_BK, indices_BK),
  )


def _slots(coef_BK, indices_BK):
  """Row, latent and coefficient of every slot; row 2**31 - 1: not active."""
  row_BK = lax.broadcasted_iota(jnp.int32, coef_BK.shape, 0)
  row_BK = jnp.where(coef_BK != 0, row_BK, NOBODY)
  return tuple(a.reshape(-1) for a in (row_BK, indices_BK, coef_BK))


def _front_slots(coef_BK, indices_BK, capacity):
  """`_slots` of the active ones only, which are the first ones of their rows.

  Places follow from one count per row; nothing is sorted or searched.
  """
  batch, k = coef_BK.shape
  count_B = jnp.sum(coef_BK != 0, axis=1, dtype=jnp.int32)
  start_B = jnp.cumsum(count_B) - count_B
  # Pair p is slot p + jump of the last row that starts at or before p.
  jump_B = k * jnp.arange(batch, dtype=jnp.int32) - start_B
  jump_C = jnp.zeros((capacity,), jnp.int32)
  jump_C = jump_C.at[start_B].add(
    jnp.diff(jump_B, prepend=0), mode="drop", indices_are_sorted=True
  )
  place_C = jnp.arange(capacity, dtype=jnp.int32)
  live_C = place_C < jnp.sum(count_B)
  slot_C = jnp.where(live_C, place_C + jnp.cumsum(jump_C), 0)
  return (
    jnp.where(live_C, slot_C // k, NOBODY),
    indices_BK.reshape(-1)[slot_C],
    jnp.where(live_C, coef_BK.reshape(-1)[slot_C], 0),
  )


def _listed(finish, coef_BK, indices_BK, multiple, *, sort):
  """`finish(row, latent, coef)` of the active pairs, padded to the multiple.

  The list has the smallest sufficient capacity. With `sort`, `finish` sorts, so
  that it may be given slots that are not active.
  """
  slots = coef_BK.size
  count = jnp.sum(coef_BK != 0, dtype=jnp.int32)
  sizes = capacities(slots)
  length = -(-slots // multiple) * multiple
  coef_BK, indices_BK = to_front(coef_BK, indices_BK)

  def branch(capacity):
    def run():
      if capacity < slots:
        columns = finish(*_front_slots(coef_BK, indices_BK, capacity))
      elif sort:
        columns = finish(*_slots(coef_BK, indices_BK))
      else:
        columns = lax.cond(
          count == slots,
          lambda: finish(*_slots(coef_BK, indices_BK)),
          lambda: finish(*_front_slots(coef_BK, indices_BK, slots)),
        )
      fills = (NOBODY, 0, 0)
      return tuple(
        jnp.pad(column_C, (0, length - capacity), constant_values=fill)
        for column_C, fill in zip(columns, fills, strict=True)
      )

    return run

  index = jnp.searchsorted(jnp.array(sizes), count)
  owner_P, source_P, coef_P = lax.switch(
    index, [branch(size) for size in sizes]
  )
  return Pairs(owner_P, source_P, coef_P, count)


def by_latent(
  coef_BK: jax.Array, indices_BK: jax.Array, latents: int, multiple: int
) -> Pairs:
  """Owners are latents, sources are rows.

  Args:
    coef_BK: float32; a pair is active where it is not zero.
    indices_BK: int32, distinct among a row's active pairs.
    latents: F.
    multiple: what the list's length is a multiple of.
  """
  row_bits = (coef_BK.shape[0] - 1).bit_length()

  def finish(row_C, latent_C, coef_C):
    nobody_C = row_C == NOBODY
    if latents << row_bits > NOBODY:
      latent_C = jnp.where(nobody_C, NOBODY, latent_C)
      latent_C, row_C, coef_C = lax.sort(
        (latent_C, row_C, coef_C), num_keys=2, is_stable=False
      )
      return latent_C, jnp.where(latent_C == NOBODY, 0, row_C), coef_C
    # Latent and row in one number: there are no equal keys, so that the order
    # is unique, and a sort of two arrays is cheaper than one of three.
    key_C = jnp.where(nobody_C, NOBODY, (latent_C << row_bits) | row_C)
    key_C, coef_C = lax.sort((key_C, coef_C), num_keys=1, is_stable=False)
    nobody_C = key_C == NOBODY
    return (
      jnp.where(nobody_C, NOBODY, key_C >> row_bits),
      jnp.where(nobody_C, 0, key_C & ((1 << row_bits) - 1)),
      coef_C,
    )

  return _listed(finish, coef_BK, indices_BK, multiple, sort=True)


def by_row(coef_BK: jax.Array, indices_BK: jax.Array, multiple: int) -> Pairs:
  """Owners are rows, sources are latents; arguments as in `by_latent`."""

  def finish(row_C, latent_C, coef_C):
    return row_C, jnp.where(row_C == NOBODY, 0, latent_C), coef_C

  return _listed(finish, coef_BK, indices_BK, multiple, sort=False)
