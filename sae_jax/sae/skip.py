# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A skip transcoder's matrix beside the latents: x · w_skip, and its gradient.

Every shard of the latents computes all of it: at D = E = 4,096 that is as much
as 4,096 latents, and less than what sums over shards would take.
"""

import jax
from jax import lax


def output(x_BD: jax.Array, w_skip_DE: jax.Array, spec) -> jax.Array:
  """What the skip adds to the reconstruction."""
  return _product(x_BD, w_skip_DE, ((1,), (0,)), spec)


def gradient(x_BD: jax.Array, slope_BE: jax.Array, spec) -> jax.Array:
  """The matrix's gradient, over all rows, from that of the reconstruction."""
  grad_DE = _product(x_BD, slope_BE, ((0,), (0,)), spec)
  return (
    grad_DE if spec.data_axis is None else lax.psum(grad_DE, spec.data_axis)
  )


def _product(a, b, contract, spec):
  dtype = spec.matmul_dtype or a.dtype
  return lax.dot_general(
    a.astype(dtype),
    b.astype(dtype),
    (contract, ((), ())),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=a.dtype,
  )
