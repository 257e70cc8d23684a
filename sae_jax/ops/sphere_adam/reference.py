# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The definition, step by step as a chain of optax transformations does it."""

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
  grad_square = grad_square + jnp.sum(grad_FD * grad_FD)
  if rule.unit_rows:
    along_F1 = jnp.sum(grad_FD * row_FD, axis=1, keepdims=True)
    square_F1 = jnp.sum(row_FD * row_FD, axis=1, keepdims=True)
    grad_FD = grad_FD - along_F1 / square_F1 * row_FD
  grad_FD = grad_scale * grad_FD
  mu_FD = (1 - rule.b1) * grad_FD + rule.b1 * mu_FD
  nu_FD = (1 - rule.b2) * grad_FD**2 + rule.b2 * nu_FD
  mean_FD = mu_FD / (1 - rule.b1**count)
  square_FD = nu_FD / (1 - rule.b2**count)
  row_FD = row_FD - learning_rate * (mean_FD / (jnp.sqrt(square_FD) + rule.eps))
  if rule.unit_rows:
    row_FD = row_FD / jnp.linalg.norm(row_FD, axis=1, keepdims=True)
  return formula.Moved(row_FD, mu_FD, nu_FD, grad_square)
