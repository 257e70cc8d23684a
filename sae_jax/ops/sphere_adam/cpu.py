# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""CPU: blocks of rows that fit the cache, one after another, in place.

A loop runs on one thread. XLA runs the loops of matrices that do not depend on
one another side by side, so that encoder and decoder take a core each.
"""

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops.sphere_adam import formula

# Of one array's block. XLA splits fusions over more than about 100 KiB between
# threads, which then costs more than it gains.
_BLOCK_BYTES = 80 * 1024


def block_rows(rows: int, row_bytes: int) -> int:
  """Rows of a block: a divisor of all rows unless that makes it small."""
  most = min(rows, max(1, _BLOCK_BYTES // row_bytes))
  half = most // 2 + 1
  return next((n for n in range(most, half, -1) if rows % n == 0), most)


def sphere_adam(
  row_FD: jax.Array,
  grad_FD: jax.Array,
  mu_FD: jax.Array,
  nu_FD: jax.Array,
  learning_rate: jax.Array,
  count: jax.Array,
  grad_scale: jax.Array,
  grad_square: jax.Array,
  rule: formula.Rule,
) -> formula.Moved:
  """See `api.sphere_adam`."""
  rows, d_model = row_FD.shape
  size = block_rows(rows, d_model * row_FD.dtype.itemsize)
  factors = formula.factors(learning_rate, count, rule)

  # Every line changes one matrix, and later ones read what it has written:
  # no matrix is read beside a change of it, for which XLA would copy it.
  def step(i, carry):
    row_FD, mu_FD, nu_FD, grad_square = carry
    start = jnp.minimum(i * size, rows - size)
    todo_R1 = (start + jnp.arange(size) >= i * size)[:, None]

    def at(array_FD):
      return lax.dynamic_slice_in_dim(array_FD, start, size)

    def put(array_FD, new_RD):
      if rows % size:  # the last block starts early and leaves what is done
        new_RD = jnp.where(todo_R1, new_RD, at(array_FD))
      return lax.dynamic_update_slice_in_dim(array_FD, new_RD, start, 0)

    grad_RD = at(grad_FD)
    if rows % size:
      grad_square += jnp.sum(jnp.where(todo_R1, grad_RD * grad_RD, 0))
    else:
      grad_square += jnp.sum(grad_RD * grad_RD)
    if rule.unit_rows:
      grad_RD = formula.tangent(at(row_FD), grad_RD)
    grad_RD = grad_scale * grad_RD
    mu_FD = put(mu_FD, formula.mean(grad_RD, at(mu_FD), rule))
    nu_FD = put(nu_FD, formula.square(grad_RD, at(nu_FD), rule))
    moved_RD = formula.step(at(row_FD), at(mu_FD), at(nu_FD), *factors, rule)
    row_FD = put(row_FD, moved_RD)
    if rule.unit_rows:
      row_FD = put(row_FD, formula.unit(at(row_FD)))
    return row_FD, mu_FD, nu_FD, grad_square

  start = (row_FD, mu_FD, nu_FD, grad_square)
  return formula.Moved(*lax.fori_loop(0, -(-rows // size), step, start))
