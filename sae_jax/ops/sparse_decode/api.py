# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sparse_decode` and `row_dots`: each other's gradient.

Both gather the rows that a batch row selects; indices must be in range.
"""

import functools

import jax
import jax.numpy as jnp

from sae_jax.ops import dispatch
from sae_jax.ops.pair_grads import api as pair_grads_api
from sae_jax.ops.sparse_decode import chunked, compacted, reference

DECODE = {
  "reference": reference.sparse_decode,
  "cpu": chunked.sparse_decode_cpu,
  "xla": compacted.sparse_decode,
  "pallas_tpu": dispatch.when_called(
    f"{__package__}.pallas_tpu", "sparse_decode"
  ),
  "pallas_gpu": compacted.sparse_decode,  # no kernel of its own
}
ROW_DOTS = {
  "reference": reference.row_dots,
  "cpu": chunked.row_dots_cpu,
  "xla": chunked.row_dots_xla,
  "pallas_tpu": chunked.row_dots_xla,
  "pallas_gpu": chunked.row_dots_xla,
}
RESIDUAL = {
  "reference": reference.residual,
  "cpu": chunked.residual_cpu,
  "xla": chunked.residual_xla,
  "pallas_tpu": dispatch.when_called(f"{__package__}.pallas_tpu", "residual"),
  "pallas_gpu": chunked.residual_xla,
}


@functools.partial(jax.jit, static_argnames=("implementation",))
def residual(
  values_BK: jax.Array,
  indices_BK: jax.Array,
  w_dec_FD: jax.Array,
  target_BD: jax.Array,
  *,
  implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """`sparse_decode` minus a target, and its `row_dots`, from one gather.

  What a squared error and its gradient need when one device holds all latents.

  Returns:
    error_BD = Σ_k values · w_dec[indices] − target, and
    dots_BK = error · w_dec[indices].
  """
  run = dispatch.choose("residual", RESIDUAL, implementation)
  return run(*map(jnp.asarray, (values_BK, indices_BK, w_dec_FD, target_BD)))


@functools.partial(jax.jit, static_argnames=("implementation",))
def row_dots(
  x_BD: jax.Array,
  indices_BK: jax.Array,
  w_FD: jax.Array,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """`out[b, k] = x[b] · w[indices[b, k]]`, [B, K].

  The gradient of `sparse_decode` with respect to its values. Indices must be
  in [0, F). Accumulates in float32 (float64 for float64 inputs).
  """
  dots = dispatch.choose("row_dots", ROW_DOTS, implementation)
  return dots(*map(jnp.asarray, (x_BD, indices_BK, w_FD)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _sparse_decode(values_BK, indices_BK, w_dec_FD, implementation):
  decode = dispatch.choose("sparse_decode", DECODE, implementation)
  return decode(values_BK, indices_BK, w_dec_FD)


@functools.partial(jax.jit, static_argnames=("implementation",))
def sparse_decode(
  values_BK: jax.Array,
  indices_BK: jax.Array,
  w_dec_FD: jax.Array,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """`out[b] = Σ_k values[b, k] · w_dec[indices[b, k]]`, [B, D].

  Indices must be in [0, F); a latent may repeat in a row when its gradient is
  not asked for. Accumulates in float32 (float64 for float64 inputs).
  Differentiable in the values and the rows, deterministically.
  """
  arrays = map(jnp.asarray, (values_BK, indices_BK, w_dec_FD))
  return _sparse_decode(*arrays, implementation)


def _forward(values_BK, indices_BK, w_dec_FD, implementation):
  out_BD = _sparse_decode(values_BK, indices_BK, w_dec_FD, implementation)
  return out_BD, (values_BK, indices_BK, w_dec_FD)


def _backward(implementation, saved, grad_BD):
  values_BK, indices_BK, w_dec_FD = saved
  grad_values_BK = row_dots(
    grad_BD, indices_BK, w_dec_FD, implementation=implementation
  )
  grad_w_FD = pair_grads_api.pair_grads(
    values_BK,
    indices_BK,
    grad_BD,
    w_dec_FD.shape[0],
    implementation=implementation,
  )
  return (
    grad_values_BK.astype(values_BK.dtype),
    None,
    grad_w_FD.astype(w_dec_FD.dtype),
  )


_sparse_decode.defvjp(_forward, _backward)
