# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""AuxK: dead latents model what the live ones leave over.

Gao et al. 2024 (arXiv:2406.04093), App. A.2. Dead latents are compacted first,
so that the dense products below cost what the dead ones cost; nothing runs
when none is dead.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops import rows, topk_mask
from sae_jax.ops.topk_encode import reference

_CPU_ROWS = 512
# Pre-activations of one chunk on accelerators, in elements: 64 MiB.
_CHUNK_ELEMENTS = 1 << 24
_SMALLEST = 256  # least capacity of the compacted set


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LatentGrads:
  """Gradients that belong to a shard's latents."""

  w_enc_FD: jax.Array
  w_dec_FD: jax.Array
  b_enc_F: jax.Array


def capacities(latents: int) -> tuple[int, ...]:
  """Static sizes of the compacted set: each at most 4 times the one before."""
  sizes = [latents]
  while sizes[0] > _SMALLEST:
    sizes.insert(0, -(-sizes[0] // 4))
  return tuple(sizes)


def add_auxk(
  grads: LatentGrads,
  params,
  centred_BD: jax.Array,
  target_BD: jax.Array,
  dead_F: jax.Array,
  target_spread: jax.Array,
  spec,
  coefficient: jax.Array | None = None,
) -> tuple[jax.Array, LatentGrads]:
  """AuxK's value, and `grads` plus its gradient times `spec.aux_coefficient`.

  `Σ_b ‖ê − e‖² / Σ_b ‖e − ē‖²` with the detached residual e = x − x̂ and
  `ê = Σ_z z · w_dec` (no `b_dec`) over the ReLU of the `aux_k` largest
  pre-activations among the dead latents (all of them if there are fewer). Zero
  when no latent is dead, and when the residual has no variance. Exact for any
  number of dead latents and any split of them over shards.

  Args:
    grads: gradients so far, of this shard's latents.
    params: this shard's parameters.
    centred_BD: x − b_dec.
    target_BD: e.
    dead_F: this shard's dead latents (bool).
    target_spread: Σ_b ‖e − ē‖² over all rows of all shards.
    spec: `losses.LossSpec`.
    coefficient: takes the place of the spec's, which is then not 0.

  Returns:
    The value before its coefficient, over all shards, and the gradients.
  """
  if spec.aux_coefficient == 0:
    return jnp.zeros((), centred_BD.dtype), grads
  if coefficient is None:
    coefficient = spec.aux_coefficient
  else:
    dead_F = dead_F & (coefficient > 0)
  count = jnp.sum(dead_F, dtype=jnp.int32)
  total, largest = count, count
  if spec.latent_axis is not None:
    # The branch must be the same on all shards: there are collectives in it.
    total = lax.psum(count, spec.latent_axis)
    largest = lax.pmax(count, spec.latent_axis)
  sizes = capacities(params.latents)
  inverse = jnp.where(target_spread > 0, 1 / target_spread, 0)
  slope = 2 * coefficient * inverse

  def branch(size):
    return lambda grads: _on_compacted(
      grads, params, centred_BD, target_BD, dead_F, total, slope, size, spec
    )

  def add(_, carry):
    fitting = jnp.searchsorted(jnp.array(sizes), largest)
    return lax.switch(fitting, [branch(size) for size in sizes], carry[1])

  # A loop of no turn or one: a conditional would copy the gradients that it
  # passes through (a tenth of a CPU step), a loop adds to them in place. (Where
  # there is one size only, XLA takes most of it out of the loop: up to 256
  # latents of a shard are computed in every step, and dropped.)
  turns = (total > 0).astype(jnp.int32)
  nothing = jnp.zeros((), centred_BD.dtype)
  square_error, grads = lax.fori_loop(0, turns, add, (nothing, grads))
  if spec.data_axis is not None:
    square_error = lax.psum(square_error, spec.data_axis)
  return square_error * inverse, grads


def _on_compacted(
  grads, params, centred_BD, target_BD, dead_F, total, slope, size, spec
):
  """AuxK on at most `size` dead latents of this shard (axis C)."""
  latents = params.latents
  if size == latents:
    return _on_all(
      grads, params, centred_BD, target_BD, dead_F, total, slope, spec
    )
  (latent_C,) = jnp.nonzero(dead_F, size=size, fill_value=latents)
  valid_C = latent_C < latents

  def take(array):
    return array.at[latent_C].get(mode="fill", fill_value=0)

  w_enc_CD, w_dec_CD = take(params.w_enc_FD), take(params.w_dec_FD)
  b_enc_C = jnp.where(valid_C, take(params.b_enc_F), -jnp.inf)
  add_rows = _row_step(w_enc_CD, w_dec_CD, b_enc_C, total, slope, spec)
  zeros = map(jnp.zeros_like, (w_enc_CD, w_dec_CD, b_enc_C))
  square_error, *added = rows.fold_chunks(
    add_rows,
    (jnp.zeros((), centred_BD.dtype), *zeros),
    _chunk_rows(size, spec),
    centred_BD,
    target_BD,
  )
  # Unused places get distinct latents past the end, which are dropped.
  latent_C = jnp.where(valid_C, latent_C, latents + jnp.arange(size))
  grads = jax.tree.map(
    lambda g, a: g.at[latent_C].add(a, mode="drop", unique_indices=True),
    grads,
    LatentGrads(*added),
  )
  return square_error, grads


def _on_all(grads, params, centred_BD, target_BD, dead_F, total, slope, spec):
  """AuxK on all latents of this shard in their places, most of them dead.

  Compacted, they and their gradients would take another 16 bytes a weight
  pair: half of what a step needs beside parameters and moments.
  """
  b_enc_F = jnp.where(dead_F, params.b_enc_F, -jnp.inf)
  add_rows = _row_step(
    params.w_enc_FD, params.w_dec_FD, b_enc_F, total, slope, spec
  )
  nothing = jnp.zeros((), centred_BD.dtype)
  square_error, *added = rows.fold_chunks(
    add_rows,
    (nothing, grads.w_enc_FD, grads.w_dec_FD, grads.b_enc_F),
    _chunk_rows(params.latents, spec),
    centred_BD,
    target_BD,
  )
  return square_error, LatentGrads(*added)


def _chunk_rows(size, spec):
  if spec.implementation == "cpu":
    return _CPU_ROWS
  return max(8, _CHUNK_ELEMENTS // size)


def _row_step(w_enc_CD, w_dec_CD, b_enc_C, total, slope, spec):
  """Forward and backward of a chunk of rows (axis R): both need its [R, C]."""
  dtype = spec.matmul_dtype or w_enc_CD.dtype
  enc_CD, dec_CD = w_enc_CD.astype(dtype), w_dec_CD.astype(dtype)

  def product(a, b, contract):
    return lax.dot_general(
      a.astype(dtype),
      b.astype(dtype),
      (contract, ((), ())),
      precision=lax.Precision.HIGHEST,
      preferred_element_type=w_enc_CD.dtype,
    )

  def add_rows(carry, centred_RD, target_RD):
    square_error, grad_enc_CD, grad_dec_CD, grad_b_C = carry
    pre_RC = reference.pre_activations(
      centred_RD.astype(dtype), enc_CD, b_enc_C
    )
    chosen_RC = lax.cond(
      total > spec.aux_k,
      lambda: topk_mask.topk_mask(pre_RC, spec.aux_k, spec.latent_axis),
      lambda: jnp.ones(pre_RC.shape, bool),
    )
    # A NaN is among the largest, so that it reaches the loss.
    values_RC = jnp.where(chosen_RC, jax.nn.relu(pre_RC), 0)
    out_RD = product(values_RC, dec_CD, ((1,), (0,)))
    if spec.latent_axis is not None:
      out_RD = lax.psum(out_RD, spec.latent_axis)
    error_RD = out_RD - target_RD
    grad_RD = slope * error_RD
    grad_values_RC = product(grad_RD, dec_CD, ((1,), (1,)))
    grad_values_RC = jnp.where(values_RC > 0, grad_values_RC, 0)
    return (
      square_error + jnp.sum(jnp.sum(error_RD * error_RD, axis=1)),
      grad_enc_CD + product(grad_values_RC, centred_RD, ((0,), (0,))),
      grad_dec_CD + product(values_RC, grad_RD, ((0,), (0,))),
      grad_b_C + jnp.sum(grad_values_RC, axis=0),
    )

  return add_rows
