# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Works on every platform: the whole matrix at once, as XLA fuses it.

Compiled for TPUs and for an H100, plain Adam reads and writes seven matrices,
which is the least. With unit rows it is 11 on TPUs, and 14 and one temporary on
the H100 (jaxlib 0.10.2, libtpu 0.0.52).
"""

import jax
import jax.numpy as jnp

from sae_jax.ops.sphere_adam import formula


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
  # A sum of squares is never negative, which XLA does not know: nothing is
  # written before it is there.
  learning_rate = jnp.where(grad_square < 0, jnp.nan, learning_rate)
  factors = formula.factors(learning_rate, count, rule)
  square = grad_square + jnp.sum(grad_FD * grad_FD)
  moved = formula.move(
    row_FD, grad_FD, mu_FD, nu_FD, *factors, grad_scale, rule
  )
  return formula.Moved(*moved, square)
