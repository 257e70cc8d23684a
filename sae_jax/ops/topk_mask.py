# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which entries are among the k largest of their row, for a large k.

A top-k that returns sorted values and places costs k times as much on a TPU
and a sort elsewhere. For a mask the k-th value is enough, and bisecting its
bits takes 32 passes whatever k is. Across shards travel 32 counts per row (120
with digits of 4 bits, in a quarter of the exchanges), and every shard's ties.
"""

import jax
import jax.numpy as jnp
from jax import lax


def ordered_keys(x: jax.Array) -> jax.Array:
  """Unsigned integers in the order of the floats; NaN (sign clear) is last."""
  bits = jnp.finfo(x.dtype).bits
  unsigned = {32: jnp.uint32, 64: jnp.uint64}[bits]
  raw = lax.bitcast_convert_type(x, unsigned)
  top = unsigned(1 << (bits - 1))
  return jnp.where(raw & top, ~raw, raw | top)


def topk_mask(
  x_RC: jax.Array,
  k: int | jax.Array,
  axis_name: str | None = None,
  *,
  digit: int = 1,
) -> jax.Array:
  """True at the k largest of every row, bool [R, C]; ties to the lower column.

  The selection of `lax.top_k`, for a row of at least k entries. NaN (as
  `reference.add_bias` makes them) counts as the largest.

  Args:
    x_RC: float32 or float64; this shard's columns.
    k: how many in all.
    axis_name: inside `shard_map`, the axis that columns are split over; shard s
      holds lower columns than shard s + 1.
    digit: bits of the k-th value that a pass finds; divides 32.
  """
  key_RC = ordered_keys(x_RC)
  bits = key_RC.dtype.itemsize * 8

  def total(mask):
    count = jnp.sum(mask, axis=-1, dtype=jnp.int32)
    return count if axis_name is None else lax.psum(count, axis_name)

  guess_N = jnp.arange(1, 1 << digit, dtype=key_RC.dtype)

  def refine(i, kth_R):
    shift = (bits - digit * (i + 1)).astype(key_RC.dtype)
    higher_RN = kth_R[:, None] | (guess_N << shift)[None, :]
    enough_RN = total(key_RC[:, None, :] >= higher_RN[:, :, None]) >= k
    # Counts fall as guesses rise: the number of those that have a k-th value
    # is the digit.
    return kth_R | (jnp.sum(enough_RN, axis=1, dtype=key_RC.dtype) << shift)

  kth_R = lax.fori_loop(
    0, bits // digit, refine, jnp.zeros(x_RC.shape[:1], key_RC.dtype)
  )
  reaches_RC = key_RC >= kth_R[:, None]
  surplus_R = total(reaches_RC) - k  # how many of those that tie are too many
  count_R = jnp.sum(key_RC == kth_R[:, None], axis=1, dtype=jnp.int32)
  # Not in the branch below: shards of other rows may take the other one.
  before_R, ties_R = _counts_before(count_R, axis_name)

  def without_ties():
    return reaches_RC

  def lowest_of_ties():
    ties_RC = key_RC == kth_R[:, None]
    # 1 for the first tie of all shards.
    rank_RC = before_R[:, None] + jnp.cumsum(ties_RC, axis=1, dtype=jnp.int32)
    wanted_R = ties_R - surplus_R
    return reaches_RC & (~ties_RC | (rank_RC <= wanted_R[:, None]))

  return lax.cond(jnp.any(surplus_R > 0), lowest_of_ties, without_ties)


def _counts_before(count_R, axis_name):
  """Counts of the shards below this one, and of all shards."""
  if axis_name is None:
    return jnp.zeros_like(count_R), count_R
  count_SR = lax.all_gather(count_R, axis_name)
  shard_S = jnp.arange(count_SR.shape[0])
  below_S1 = (shard_S < lax.axis_index(axis_name))[:, None]
  return jnp.sum(jnp.where(below_S1, count_SR, 0), axis=0), jnp.sum(count_SR, 0)
