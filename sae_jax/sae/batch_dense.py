# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""BatchTopK of batches that the sparse way cannot hold, a chunk at a time.

Exact for any number of pairs in any row or shard, and slow: the encoder runs
once for every digit of the threshold and once more for loss and gradients,
which are dense products. No more than a chunk's pre-activations are held.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops import rows as rows_lib
from sae_jax.ops import topk_mask
from sae_jax.ops.topk_encode import reference
from sae_jax.sae import auxk, batch_topk, nested

_CHUNK_ELEMENTS = 1 << 23  # pre-activations: 32 MiB
_DIGIT = 4  # bits of the threshold that one run of the encoder finds


def outcome(
  params,
  inputs_BD: jax.Array,
  wanted_BE: jax.Array,
  per_row: jax.Array,
  spec,
  fewer: jax.Array | None = None,
) -> nested.Outcome:
  """Loss and gradients; arguments as in `nested.from_lines` and `select`."""
  dtype = spec.matmul_dtype or inputs_BD.dtype
  enc_FD = params.w_enc_FD.astype(dtype)
  chunk = max(8, _CHUNK_ELEMENTS // params.latents)

  def encode(x_RD):
    return reference.pre_activations(x_RD.astype(dtype), enc_FD, params.b_enc_F)

  def counts(key_N):
    def add(count_N, x_RD):
      key_RF = topk_mask.ordered_keys(encode(x_RD))
      # One after another: XLA's CPU compiler would write all comparisons.
      return count_N + lax.map(
        lambda key: jnp.sum(key_RF >= key, dtype=jnp.int32), key_N
      )

    zeros_N = jnp.zeros(key_N.shape, jnp.int32)
    count_N = rows_lib.fold_chunks(add, zeros_N, chunk, inputs_BD)
    return lax.psum(count_N, spec.axes) if spec.axes else count_N

  keys = jax.eval_shape(lambda: topk_mask.ordered_keys(encode(inputs_BD[:1])))
  wanted_T = batch_topk.wanted(inputs_BD, spec, fewer)
  kth_T = batch_topk.kth_keys(counts, wanted_T, keys.dtype, _DIGIT)
  zero = jnp.zeros((), inputs_BD.dtype)
  zeros_F = jnp.zeros((params.latents,), jnp.int32)
  matrices = (params.w_enc_FD, params.w_dec_FD, params.b_enc_F)
  start = (
    (zero, zero),
    auxk.LatentGrads(*map(jnp.zeros_like, matrices)),
    (jnp.zeros((), jnp.int32), zeros_F, jnp.full_like(zero, jnp.inf)),
  )
  (squares, grads, fired), (error_BE, slope_BE) = rows_lib.scan_chunks(
    _row_step(params, encode, kth_T, per_row, spec),
    start,
    chunk,
    inputs_BD,
    wanted_BE,
  )
  square_error, main_square_error = squares
  active, fired_F, smallest = fired
  return nested.Outcome(
    error_BE=error_BE,
    slope_BE=slope_BE,
    square_error=square_error,
    main_square_error=main_square_error,
    grads=grads,
    active=active,
    fired_F=fired_F,
    smallest=smallest,
  )


def _product(a, b, contract):
  return lax.dot_general(
    a, b, (contract, ((), ())), precision=lax.Precision.HIGHEST
  )


def _total(arrays):
  return functools.reduce(jnp.add, arrays)


def _row_step(params, encode, kth_T, per_row, spec):
  """Forward and backward of a chunk of rows (axis R)."""
  of = nested.levels(spec)
  latent_1F = jnp.arange(params.latents, dtype=jnp.int32)[None, :]

  def add_rows(carry, x_RD, wanted_RE):
    squares, grads, (active, fired_F, smallest) = carry
    pre_RF = encode(x_RD)
    level_RF = batch_topk.pair_levels(
      pre_RF, latent_1F, kth_T, params.latents, spec
    )
    values_RF = jax.nn.relu(pre_RF).astype(x_RD.dtype)
    values_GRF = [
      jnp.where(level_RF == g, values_RF, 0) for g in range(of.count)
    ]
    parts = [
      _product(v_RF, params.w_dec_FD, ((1,), (0,))) for v_RF in values_GRF
    ]
    if spec.latent_axis is not None:
      parts = lax.psum(parts, spec.latent_axis)
    errors, slopes = nested.errors_and_slopes(parts, wanted_RE, per_row, spec)
    pull_RF = _total(
      jnp.where(v_RF > 0, _product(s_RE, params.w_dec_FD, ((1,), (1,))), 0)
      for v_RF, s_RE in zip(values_GRF, slopes, strict=True)
    )
    dec_FE = _total(
      _product(v_RF, s_RE, ((0,), (0,)))
      for v_RF, s_RE in zip(values_GRF, slopes, strict=True)
    )
    active_RF = (level_RF <= of.main) & (values_RF > 0)
    found = (
      active + jnp.sum(active_RF, dtype=jnp.int32),
      jnp.maximum(fired_F, jnp.max(active_RF, axis=0).astype(jnp.int32)),
      jnp.min(values_RF, initial=smallest, where=active_RF),
    )
    added = auxk.LatentGrads(
      w_enc_FD=_product(pull_RF, x_RD, ((0,), (0,))),
      w_dec_FD=dec_FE,
      b_enc_F=jnp.sum(pull_RF, axis=0),
    )
    squares = jax.tree.map(jnp.add, squares, nested.square_errors(errors, spec))
    grads = jax.tree.map(jnp.add, grads, added)
    return (squares, grads, found), (errors[of.main], slopes[0])

  return add_rows
