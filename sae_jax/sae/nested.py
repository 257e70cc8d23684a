# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Losses of several reconstructions, each made of the pairs before and its own.

A pair is a row and a latent that is active in it. Every pair has a level, and
reconstruction g adds up the levels 0 … g:

    e_g = b_dec + Σ_{level ≤ g} value · w_dec[latent] − y     Σ_g w_g ‖e_g‖²

so that a pair of level l has the gradient Σ_{g ≥ l} w_g e_g for its output:
suffix sums of the errors. Matryoshka dictionaries (Bussmann et al. 2025,
arXiv:2503.17547) take a pair's level from its latent: which of a few nested
prefixes is the first to hold it. Multi-TopK (Gao et al. 2024) takes it from
its rank: among the k largest, or among 4 k. One level is the usual loss.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax import ops
from sae_jax.ops.topk_encode import sharded
from sae_jax.sae import auxk, selection
from sae_jax.sae import config as config_lib
from sae_jax.sae import lines as lines_lib

MULTI_TOPK = config_lib.MULTI_TOPK


@dataclasses.dataclass(frozen=True)
class Levels:
  """How many there are, what each reconstruction weighs, and the main one.

  The main one is what the dictionary gives when it is trained: fvu, l0, AuxK
  and which latents fired are of it.
  """

  weights: tuple[float, ...]
  main: int

  @property
  def count(self) -> int:
    return len(self.weights)


def levels(spec) -> Levels:
  """Of a `losses.LossSpec`."""
  if spec.prefixes:
    count = len(spec.prefixes)
    return Levels((1 / count,) * count, count - 1)
  if spec.multi_topk:
    return Levels((1.0, spec.multi_topk), 0)
  return Levels((1.0,), 0)


def pairs_per_row(spec) -> int:
  """How many pairs are sought per row, of all levels."""
  return spec.k * (MULTI_TOPK if spec.multi_topk else 1)


def prefix_levels(latent: jax.Array, latents: int, spec) -> jax.Array:
  """The first of the prefixes that holds a shard's latent, of any shape."""
  if spec.latent_axis is not None:
    latent = latent + lax.axis_index(spec.latent_axis) * latents
  level = jnp.zeros_like(latent)
  for size in spec.prefixes[:-1]:
    level += (latent >= size).astype(latent.dtype)
  return level


def select(
  params, inputs_BD: jax.Array, spec, fewer: jax.Array | None = None
) -> tuple[selection.Selection, lines_lib.Runs]:
  """`selection.select` of all levels' pairs, and the same as runs."""
  k, per_row = spec.k, pairs_per_row(spec)
  of_all = fewer
  if spec.multi_topk and fewer is not None:
    of_all = MULTI_TOPK * fewer
  chosen = selection.select(
    params, inputs_BD, dataclasses.replace(spec, k=per_row), of_all
  )
  values_BK, indices_BK = chosen.values_BK, chosen.indices_BK
  if spec.multi_topk:
    # Winners come first: how many of a shard's are among the k best of all.
    first_B, _ = sharded.exchange(values_BK, k, spec.latent_axis, fewer)
    place_1K = jnp.arange(values_BK.shape[1])[None, :]
    level_BK = (place_1K >= first_B[:, None]).astype(jnp.int32)
  else:
    level_BK = prefix_levels(indices_BK, params.latents, spec)
  count = levels(spec).count
  level_BK = jnp.where(values_BK == 0, count, level_BK)  # keeps a NaN
  row_B = jnp.arange(values_BK.shape[0], dtype=jnp.int32)
  in_order = not spec.prefixes
  return chosen, lines_lib.runs(
    values_BK, indices_BK, level_BK, row_B, count, in_order=in_order
  )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a shard's rows and latents add to loss and gradients.

  Errors and slopes are over all latents; of sums over rows, those of the shard.
  """

  error_BE: jax.Array  # of the main reconstruction, ŷ − y
  slope_BE: jax.Array  # gradient of what all reconstructions share
  square_error: jax.Array  # Σ_g w_g Σ_b ‖e_g‖²
  main_square_error: jax.Array
  grads: auxk.LatentGrads
  active: jax.Array  # pairs of the main reconstruction
  fired_F: jax.Array  # int32: whether a latent has such a pair
  smallest: jax.Array | None = None  # of their values; inf if there is none


def errors_and_slopes(
  parts: list[jax.Array], wanted_BE: jax.Array, per_row: jax.Array, spec
) -> tuple[list[jax.Array], list[jax.Array]]:
  """Every reconstruction's error, and the gradient of every level's output.

  Args:
    parts: Σ value · w_dec over the pairs of each level, [B, E].
    wanted_BE: y − b_dec.
    per_row: what a square error is multiplied by.
    spec: `losses.LossSpec`.
  """
  errors, error_BE = [], -wanted_BE
  for part_BE in parts:
    error_BE = part_BE + error_BE
    errors.append(error_BE)
  slopes, slope_BE = [], 0.0
  for weight, error_BE in zip(
    reversed(levels(spec).weights), reversed(errors), strict=True
  ):
    slope_BE = (2 * per_row * weight) * error_BE + slope_BE
    slopes.insert(0, slope_BE)
  return errors, slopes


def square_errors(errors: list[jax.Array], spec) -> tuple[jax.Array, jax.Array]:
  """Σ_g w_g Σ_b ‖e_g‖², and the main one's Σ_b ‖e‖²."""
  of = levels(spec)
  # Per row first: two short sums round less than one over all elements.
  squares = [jnp.sum(jnp.sum(e_BE * e_BE, axis=1)) for e_BE in errors]
  weighted = [w * s for w, s in zip(of.weights, squares, strict=True)]
  return functools.reduce(jnp.add, weighted), squares[of.main]


def from_lines(
  params,
  inputs_BD: jax.Array,
  wanted_BE: jax.Array,
  lines: lines_lib.Lines,
  per_row: jax.Array,
  spec,
) -> Outcome:
  """Loss and gradients of a shard's pairs, at O(pairs · D) cost.

  Args:
    params: this shard's parameters.
    inputs_BD: what the encoder was given.
    wanted_BE: y − b_dec.
    lines: this shard's pairs.
    per_row: what a square error is multiplied by.
    spec: `losses.LossSpec`.
  """
  of, rows = levels(spec), inputs_BD.shape[0]
  how = {"implementation": spec.implementation}
  pairs = lines.values_LP, lines.indices_LP
  decoded_LE = ops.sparse_decode(*pairs, params.w_dec_FD, **how)
  owner_L = lines.level_L * rows + lines.row_L
  used_L1 = jnp.any(lines.values_LP != 0, axis=1, keepdims=True)
  part_OE = ops.pair_grads(
    used_L1.astype(decoded_LE.dtype),
    owner_L[:, None],
    decoded_LE,
    of.count * rows,
    **how,
  )
  if spec.latent_axis is not None:
    part_OE = lax.psum(part_OE, spec.latent_axis)
  errors, slopes = errors_and_slopes(
    list(part_OE.reshape(of.count, rows, -1)), wanted_BE, per_row, spec
  )
  grads = ops.weight_grads(
    *pairs,
    params.w_dec_FD,
    inputs_BD[lines.row_L],
    jnp.concatenate(slopes)[owner_L],
    **how,
  )
  active_LP = (lines.values_LP > 0) & (lines.level_L <= of.main)[:, None]
  fired_F = jnp.zeros((params.latents,), jnp.int32)
  total, main = square_errors(errors, spec)
  return Outcome(
    error_BE=errors[of.main],
    slope_BE=slopes[0],
    square_error=total,
    main_square_error=main,
    grads=auxk.LatentGrads(*grads),
    active=jnp.sum(active_LP, dtype=jnp.int32),
    fired_F=fired_F.at[lines.indices_LP].max(active_LP.astype(jnp.int32)),
    smallest=jnp.min(lines.values_LP, initial=jnp.inf, where=active_LP),
  )
