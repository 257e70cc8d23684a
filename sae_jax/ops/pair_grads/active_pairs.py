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

# Capacities are total slots over these. A shard of n = 4, 16, 64 has a little
# more or less than 1/n of the slots active, hence the third on top.
_FRACTIONS = (48, 12, 3)
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


def _to_front(active_BK, *arrays_BK):
  """Moves every row's active slots to its front; order is kept."""
  k = active_BK.shape[1]
  place_BK = lax.broadcasted_iota(jnp.int32, active_BK.shape, 1)
  key_BK = jnp.where(active_BK, place_BK, k)
  key_BK, *arrays_BK = lax.sort((key_BK, *arrays_BK), dimension=1, num_keys=1)
  return key_BK < k, *arrays_BK


def _by_row(indices_BK, coef_BK, capacity):
  """The active pairs in order of rows: live, row, index, coefficient [C].

  A row's active slots are its first ones when they come from a top-k followed
  by a ReLU, so that places follow from one count per row; sorting along K, when
  they are not, costs a tenth of sorting all slots.
  """
  batch, k = coef_BK.shape
  active_BK = coef_BK != 0
  active_BK, indices_BK, coef_BK = lax.cond(
    jnp.all(active_BK[:, 1:] <= active_BK[:, :-1]),
    lambda *arrays: arrays,
    _to_front,
    *(active_BK, indices_BK, coef_BK),
  )
  count_B = jnp.sum(active_BK, axis=1, dtype=jnp.int32)
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
    live_C,
    slot_C // k,
    indices_BK.reshape(-1)[slot_C],
    jnp.where(live_C, coef_BK.reshape(-1)[slot_C], 0),
  )


def _all_slots(indices_BK, coef_BK):
  row_BK = lax.broadcasted_iota(jnp.int32, coef_BK.shape, 0)
  arrays = (coef_BK != 0, row_BK, indices_BK, coef_BK)
  return tuple(a.reshape(-1) for a in arrays)


def _listed(build, coef_BK, multiple):
  """Runs `build(capacity)` at the least sufficient one; pads the result."""
  slots = coef_BK.size
  count = jnp.sum(coef_BK != 0, dtype=jnp.int32)
  sizes = capacities(slots)
  length = -(-slots // multiple) * multiple

  def branch(capacity):
    def run():
      owner_C, source_C, coef_C = build(capacity)
      end = (0, length - capacity)
      return (
        jnp.pad(owner_C, end, constant_values=NOBODY),
        jnp.pad(source_C, end),
        jnp.pad(coef_C, end),
      )

    return run

  index = jnp.searchsorted(jnp.array(sizes), count)
  return Pairs(*lax.switch(index, [branch(size) for size in sizes]), count)


def by_latent(
  coef_BK: jax.Array, indices_BK: jax.Array, multiple: int
) -> Pairs:
  """Owners are latents, sources are rows.

  Args:
    coef_BK: float32; a pair is active where it is not zero.
    indices_BK: int32, distinct among a row's active pairs.
    multiple: what the list's length is a multiple of.
  """

  def build(capacity):
    if capacity == coef_BK.size:
      live_C, row_C, index_C, coef_C = _all_slots(indices_BK, coef_BK)
    else:
      live_C, row_C, index_C, coef_C = _by_row(indices_BK, coef_BK, capacity)
    owner_C = jnp.where(live_C, index_C, NOBODY)
    source_C = jnp.where(live_C, row_C, 0)
    # Both are keys: no two pairs are equal, so the order is unique.
    return lax.sort((owner_C, source_C, coef_C), num_keys=2)

  return _listed(build, coef_BK, multiple)


def by_row(coef_BK: jax.Array, indices_BK: jax.Array, multiple: int) -> Pairs:
  """Owners are rows, sources are latents; arguments as in `by_latent`."""

  def finish(live_C, row_C, index_C, coef_C):
    owner_C = jnp.where(live_C, row_C, NOBODY)
    return owner_C, jnp.where(live_C, index_C, 0), coef_C

  def build(capacity):
    if capacity < coef_BK.size:
      return finish(*_by_row(indices_BK, coef_BK, capacity))
    return lax.cond(
      jnp.all(coef_BK != 0),
      lambda: finish(*_all_slots(indices_BK, coef_BK)),
      lambda: finish(*_by_row(indices_BK, coef_BK, capacity)),
    )

  return _listed(build, coef_BK, multiple)
