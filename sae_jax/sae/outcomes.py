# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""From rows to errors and gradients, in each of the ways that are sparse."""

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax import ops
from sae_jax.sae import auxk, batch_dense, batch_topk, nested, selection
from sae_jax.sae import lines as lines_lib


def of_rows(
  params,
  inputs_BD: jax.Array,
  wanted_BE: jax.Array,
  per_row: jax.Array,
  spec,
  k: jax.Array | None = None,
) -> tuple[nested.Outcome, jax.Array, jax.Array]:
  """The outcome on a shard's rows; `redone` and `recall` of the `Report`.

  Args:
    params: this shard's parameters.
    inputs_BD: what the encoder is given.
    wanted_BE: y − b_dec.
    per_row: what a square error is multiplied by.
    spec: `losses.LossSpec`.
    k: takes the place of the spec's, and is at most that.
  """
  arrays = params, inputs_BD, wanted_BE
  if spec.activation == "batch_topk":
    return _batch(*arrays, per_row, spec, k)
  if not (spec.prefixes or spec.multi_topk):
    return _topk(*arrays, per_row, spec, k)
  chosen, runs = nested.select(params, inputs_BD, spec, k)
  lines, _ = _pack(runs, inputs_BD, spec)  # there is room for all
  found = nested.from_lines(*arrays, lines, per_row, spec)
  return found, chosen.redone, chosen.recall


def _topk(params, inputs_BD, wanted_BE, per_row, spec, k):
  """The k largest of every row, one reconstruction."""
  chosen = selection.select(params, inputs_BD, spec, k)
  values_BK, indices_BK = chosen.values_BK, chosen.indices_BK
  active_BK = values_BK > 0
  error_BE, dots_BK = _residual(params, values_BK, indices_BK, wanted_BE, spec)
  slope_BE = (2 * per_row) * error_BE
  grads = ops.weight_grads(
    values_BK,
    indices_BK,
    params.w_dec_FD,
    inputs_BD,
    slope_BE,
    None if dots_BK is None else (2 * per_row) * dots_BK,
    implementation=spec.implementation,
  )
  square_error, _ = nested.square_errors([error_BE], spec)
  fired_F = jnp.zeros((params.latents,), jnp.int32)
  found = nested.Outcome(
    error_BE=error_BE,
    slope_BE=slope_BE,
    square_error=square_error,
    main_square_error=square_error,
    grads=auxk.LatentGrads(*grads),
    active=jnp.sum(active_BK),
    fired_F=fired_F.at[indices_BK].max(active_BK.astype(jnp.int32)),
  )
  return found, chosen.redone, chosen.recall


def _residual(params, values_BK, indices_BK, wanted_BE, spec):
  """ŷ − y of all shards; its products with decoder rows if they are free."""
  arrays = (values_BK, indices_BK, params.w_dec_FD)
  how = {"implementation": spec.implementation}
  if spec.latent_axis is None:
    return ops.residual(*arrays, wanted_BE, **how)
  decoded_BE = lax.psum(ops.sparse_decode(*arrays, **how), spec.latent_axis)
  return decoded_BE - wanted_BE, None


def _batch(params, inputs_BD, wanted_BE, per_row, spec, k):
  """The k·B largest of all rows; densely if there is no other way."""
  arrays = params, inputs_BD, wanted_BE
  chosen = batch_topk.select(params, inputs_BD, spec, k)
  lines, fits = _pack(chosen.runs, inputs_BD, spec)
  # All shards take the same branch: there are sums over shards in it.
  redone = 1 - (chosen.complete & fits).astype(jnp.int32)
  for axis in spec.axes:
    redone = lax.pmax(redone, axis)
  found = lax.cond(
    redone > 0,
    lambda: batch_dense.outcome(*arrays, per_row, spec, k),
    lambda: nested.from_lines(*arrays, lines, per_row, spec),
  )
  return found, redone, jnp.ones(())


def _pack(runs, inputs_BD, spec):
  return lines_lib.pack(
    runs,
    rows=inputs_BD.shape[0],
    per_row=nested.pairs_per_row(spec),
    levels=nested.levels(spec).count,
  )
