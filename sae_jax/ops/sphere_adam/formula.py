# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What happens to a block of rows: the arithmetic that all kernels share.

Nothing in it crosses rows but the sum of squares, so a block may be any rows.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moved:
  """Rows and moments after a step, and Σ g² of the gradient as it came."""

  row_FD: jax.Array
  mu_FD: jax.Array
  nu_FD: jax.Array
  grad_square: jax.Array  # scalar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
  """Adam's constants, and whether rows are kept on the unit sphere."""

  b1: float
  b2: float
  eps: float
  unit_rows: bool


def factors(
  learning_rate: jax.Array, count: jax.Array, rule: Rule
) -> tuple[jax.Array, jax.Array]:
  """`η / c₁` and `1 / √c₂` with Adam's bias corrections `cᵢ = 1 − bᵢᵗ`.

  `η (μ/c₁) / (√(ν/c₂) + ε) = (η/c₁) μ / (√ν/√c₂ + ε)` has two divisions less
  per element. `count` is t, the number of this step, from 1.
  """
  return (
    learning_rate / (1 - rule.b1**count),
    1 / jnp.sqrt(1 - rule.b2**count),
  )


def tangent(row_FD: jax.Array, grad_FD: jax.Array) -> jax.Array:
  """The gradient without its component along each row."""
  along_F1 = jnp.sum(grad_FD * row_FD, axis=1, keepdims=True)
  square_F1 = jnp.sum(row_FD * row_FD, axis=1, keepdims=True)
  return grad_FD - along_F1 / square_F1 * row_FD


def mean(grad_FD: jax.Array, mu_FD: jax.Array, rule: Rule) -> jax.Array:
  """The new first moments."""
  return (1 - rule.b1) * grad_FD + rule.b1 * mu_FD


def square(grad_FD: jax.Array, nu_FD: jax.Array, rule: Rule) -> jax.Array:
  """The new second moments."""
  return (1 - rule.b2) * (grad_FD * grad_FD) + rule.b2 * nu_FD


def step(
  row_FD: jax.Array,
  mu_FD: jax.Array,
  nu_FD: jax.Array,
  rate: jax.Array,
  nu_scale: jax.Array,
  rule: Rule,
) -> jax.Array:
  """Rows moved by the new moments; `factors` gives `rate` and `nu_scale`."""
  return row_FD - rate * mu_FD / (jnp.sqrt(nu_FD) * nu_scale + rule.eps)


def unit(row_FD: jax.Array) -> jax.Array:
  """Rows divided by their norms."""
  square_F1 = jnp.sum(row_FD * row_FD, axis=1, keepdims=True)
  return row_FD * (1 / jnp.sqrt(square_F1))


def move(
  row_FD: jax.Array,
  grad_FD: jax.Array,
  mu_FD: jax.Array,
  nu_FD: jax.Array,
  rate: jax.Array,
  nu_scale: jax.Array,
  grad_scale: jax.Array,
  rule: Rule,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """All of it: new rows, mu and nu."""
  if rule.unit_rows:
    grad_FD = tangent(row_FD, grad_FD)
  grad_FD = grad_scale * grad_FD
  mu_FD = mean(grad_FD, mu_FD, rule)
  nu_FD = square(grad_FD, nu_FD, rule)
  row_FD = step(row_FD, mu_FD, nu_FD, rate, nu_scale, rule)
  return unit(row_FD) if rule.unit_rows else row_FD, mu_FD, nu_FD
