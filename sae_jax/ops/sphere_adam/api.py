# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sphere_adam`: signature, checks and choice of implementation."""

import functools

import jax
import jax.numpy as jnp

from sae_jax import errors
from sae_jax.ops import dispatch
from sae_jax.ops.sphere_adam import cpu, formula, reference, xla

# `(row_FD, grad_FD, mu_FD, nu_FD, learning_rate, count, grad_scale,
# grad_square, rule) -> Moved`.
IMPLEMENTATIONS = {
  "reference": reference.sphere_adam,
  "cpu": cpu.sphere_adam,
  "xla": xla.sphere_adam,
  "pallas_tpu": dispatch.when_called(
    f"{__package__}.pallas_tpu", "sphere_adam"
  ),
  "pallas_gpu": xla.sphere_adam,  # no kernel of its own
}


@functools.partial(
  jax.jit, static_argnames=("b1", "b2", "eps", "unit_rows", "implementation")
)
def sphere_adam(
  row_FD: jax.Array,
  grad_FD: jax.Array,
  mu_FD: jax.Array,
  nu_FD: jax.Array,
  learning_rate: jax.Array,
  count: jax.Array,
  grad_scale: jax.Array | float = 1.0,
  grad_square: jax.Array | float = 0.0,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  unit_rows: bool = True,
  implementation: str | None = None,
) -> formula.Moved:
  """A step of Adam for a matrix whose rows stay on the unit sphere.

  The gradient loses its component along each row, Adam (Kingma & Ba 2015,
  with bias corrections) moves the row, and the row is divided by its norm. All
  happens in one pass, in place where the caller donates ("reference" and "xla"
  leave the passes to XLA). A row depends on nothing but itself. NaN and
  infinity in a gradient stay in its row and in `grad_square`.

  Args:
    row_FD: the parameters; with `unit_rows`, no row is zero.
    grad_FD: their gradient.
    mu_FD: first moments, zero at first.
    nu_FD: second moments, zero at first.
    learning_rate: of this step.
    count: the number of this step, from 1.
    grad_scale: what the gradient, as Adam takes it, is multiplied by.
    grad_square: what the sum of squares starts with. No row is written before
      it is known: XLA needs no copy of rows whose other readers end in it.
    b1: decay of the first moments.
    b2: decay of the second moments.
    eps: added to the root of the second moment.
    unit_rows: False: plain Adam, any rows.
    implementation: one of `IMPLEMENTATIONS`, or None for the platform's own.

  Returns:
    The new rows and moments, and `grad_square` + Σ g² of `grad_FD` as it came.

  Raises:
    errors.InputError: shapes or dtypes disagree, or there is no such
      implementation.
  """
  arrays = tuple(map(jnp.asarray, (row_FD, grad_FD, mu_FD, nu_FD)))
  kinds = {(array.shape, array.dtype) for array in arrays}
  if len(kinds) != 1 or row_FD.ndim != 2 or not row_FD.size:
    named = zip(("row", "grad", "mu", "nu"), arrays, strict=True)
    raise errors.InputError(
      "sphere_adam: "
      + ", ".join(f"{name} {a.dtype}{list(a.shape)}" for name, a in named)
      + "; need four matrices [F, D] of one shape and dtype, none empty"
    )
  run = dispatch.choose("sphere_adam", IMPLEMENTATIONS, implementation)
  rule = formula.Rule(b1=b1, b2=b2, eps=eps, unit_rows=unit_rows)
  return run(
    *arrays,
    jnp.asarray(learning_rate, row_FD.dtype),
    jnp.asarray(count, jnp.int32),
    jnp.asarray(grad_scale, row_FD.dtype),
    jnp.asarray(grad_square, row_FD.dtype),
    rule,
  )
