# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""CPU: blocks of rows that fit the cache, one after another, in place."""

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops.sphere_adam import formula

# Of one array's block. A step has about eight such arrays, and 1 MiB of cache.
_BLOCK_BYTES = 80 * 1024


def block_rows(rows: int, row_bytes: int) -> int:
  return min(rows, max(1, _BLOCK_BYTES // row_bytes))


def sphere_adam(
  row_FD: jax.Array,
  grad_FD: jax.Array,
  mu_FD: jax.Array,
  nu_FD: jax.Array,
  learning_rate: jax.Array,
  count: jax.Array,
  grad_square: jax.Array,
  rule: formula.Rule,
) -> formula.Moved:
  """See `api.sphere_adam`."""
  rows, d_model = row_FD.shape
  size = block_rows(rows, d_model * row_FD.dtype.itemsize)
  blocks = -(-rows // size)
  factors = formula.factors(learning_rate, count, rule)

  def compute(start, new, row_FD, grad_FD, mu_FD, nu_FD):
    old = tuple(
      lax.dynamic_slice_in_dim(array, start, size)
      for array in (row_FD, mu_FD, nu_FD)
    )
    grad_RD = lax.dynamic_slice_in_dim(grad_FD, start, size)
    row_RD, mu_RD, nu_RD = old
    moved = formula.move(row_RD, grad_RD, mu_RD, nu_RD, *factors, rule)
    if rows % size:  # the last block starts early and leaves what is done
      todo_R1 = (jnp.arange(size) >= new)[:, None]
      moved = tuple(
        jnp.where(todo_R1, a, b) for a, b in zip(moved, old, strict=True)
      )
      grad_RD = jnp.where(todo_R1, grad_RD, 0)
    return *moved, jnp.sum(grad_RD * grad_RD)

  def skip(*_):
    nothing = jnp.full((size, d_model), jnp.nan, row_FD.dtype)
    return nothing, nothing, nothing, jnp.full((), jnp.nan, row_FD.dtype)

  def step(i, carry):
    *arrays, grad_square = carry
    row_FD, mu_FD, nu_FD = arrays
    start = jnp.minimum(i * size, rows - size)
    # The condition always holds. XLA cannot know, so it keeps the branch, whose
    # results have places of their own. Without it the reads of a block are
    # fused with the writes of it, in several fusions that each write what
    # others still read: XLA then copies the matrices in every round.
    *blocks_RD, square = lax.cond(
      i < blocks,
      compute,
      skip,
      start,
      i * size - start,
      row_FD,
      grad_FD,
      mu_FD,
      nu_FD,
    )
    arrays = [
      lax.dynamic_update_slice_in_dim(array, block, start, 0)
      for array, block in zip(arrays, blocks_RD, strict=True)
    ]
    return *arrays, grad_square + square

  start = (row_FD, mu_FD, nu_FD, grad_square)
  return formula.Moved(*lax.fori_loop(0, blocks, step, start))
