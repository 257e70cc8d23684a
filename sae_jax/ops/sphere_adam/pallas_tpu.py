# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""TPU: a kernel that streams blocks of rows through VMEM, in place.

Four matrices come in and three go out, each double-buffered; nothing else is
in HBM. Bound by HBM: 28 bytes an element against some 50 vector operations
(estimated).
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sae_jax.ops import dispatch, tpu_chips
from sae_jax.ops.sphere_adam import formula, xla

_SUBLANES, _LANES = 8, 128
_STREAMS = 2 * 7  # buffers of a block
# A grid step costs about 0.35 us (estimated); moving seven such blocks, 3 to 9.
_BLOCK_BYTES = 1 << 20
_GROUP = 32  # vector registers of 64 that one array's group of rows takes


def block_rows(
  chip: tpu_chips.Chip, rows: int, d_model: int
) -> tuple[int, int]:
  """Rows of a block and of the groups in it, both multiples of 8.

  Beside a block's buffers, VMEM holds about 8 temporaries of a group.
  """
  tiles = pl.cdiv(d_model, _LANES)
  row_bytes = tiles * _LANES * 4
  group = _SUBLANES * max(1, _GROUP // tiles)
  group = min(group, pl.cdiv(rows, _SUBLANES) * _SUBLANES)
  left = chip.kernel_vmem_bytes - 8 * group * row_bytes
  most = min(_BLOCK_BYTES, left // _STREAMS) // (group * row_bytes)
  return group * max(1, min(most, pl.cdiv(rows, group))), group


def _kernel(
  factors_ref,
  row_ref,
  grad_ref,
  mu_ref,
  nu_ref,
  new_row_ref,
  new_mu_ref,
  new_nu_ref,
  square_ref,
  *,
  rows,
  group,
  rule,
):
  block = pl.program_id(0)
  size = row_ref.shape[0]
  rate, nu_scale = factors_ref[0], factors_ref[1]

  def step(i, square_G1):
    at = pl.ds(pl.multiple_of(i * group, _SUBLANES), group)
    grad_GD = grad_ref[at, :]
    new_row_ref[at, :], new_mu_ref[at, :], new_nu_ref[at, :] = formula.move(
      row_ref[at, :],
      grad_GD,
      mu_ref[at, :],
      nu_ref[at, :],
      rate,
      nu_scale,
      factors_ref[2],
      rule,
    )
    new_G1 = jnp.sum(grad_GD * grad_GD, axis=1, keepdims=True)
    if rows % size:  # what is past the end is not defined
      place_G1 = jax.lax.broadcasted_iota(jnp.int32, (group, 1), 0)
      inside_G1 = block * size + i * group + place_G1 < rows
      new_G1 = jnp.where(inside_G1, new_G1, 0)
    return square_G1 + new_G1

  zero_G1 = jnp.zeros((group, 1), jnp.float32)
  square_G1 = jax.lax.fori_loop(0, size // group, step, zero_G1)
  square = jnp.sum(square_G1) + jnp.where(block == 0, factors_ref[3], 0.0)
  square_ref[...] = jnp.full(square_ref.shape, square)


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
  arrays = (row_FD, grad_FD, mu_FD, nu_FD)
  # Plain Adam is one fusion of XLA's, which reads and writes no more. A matrix
  # whose rows are not whole registers XLA keeps by columns: for a kernel it
  # would copy every matrix on its way in and out.
  if (
    not rule.unit_rows
    or row_FD.shape[1] % _LANES
    or row_FD.dtype != jnp.float32
  ):
    return xla.sphere_adam(
      *arrays, learning_rate, count, grad_scale, grad_square, rule
    )
  rows, d_model = row_FD.shape
  chip = tpu_chips.target()
  size, group = block_rows(chip, rows, d_model)
  blocks = pl.cdiv(rows, size)
  factors = formula.factors(learning_rate, count, rule)
  matrix = pl.BlockSpec((size, d_model), lambda i: (i, 0))
  new = jax.ShapeDtypeStruct((rows, d_model), jnp.float32)
  new_row_FD, new_mu_FD, new_nu_FD, squares_N1L = pl.pallas_call(
    functools.partial(_kernel, rows=rows, group=group, rule=rule),
    grid=(blocks,),
    in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM)] + [matrix] * 4,
    out_specs=[matrix] * 3
    + [pl.BlockSpec((None, 1, _LANES), lambda i: (i, 0, 0))],
    out_shape=[new] * 3
    + [jax.ShapeDtypeStruct((blocks, 1, _LANES), jnp.float32)],
    input_output_aliases={1: 0, 3: 1, 4: 2},
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel",),
      vmem_limit_bytes=chip.kernel_vmem_bytes,
    ),
    cost_estimate=pl.CostEstimate(
      flops=20 * row_FD.size,
      transcendentals=2 * row_FD.size,
      bytes_accessed=7 * row_FD.nbytes,
    ),
    interpret=dispatch.interpret(),
    name="sphere_adam",
  )(jnp.stack([*factors, grad_scale, grad_square]), *arrays)
  return formula.Moved(
    new_row_FD, new_mu_FD, new_nu_FD, jnp.sum(squares_N1L[:, 0, 0])
  )
