# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents reconstruct a batch: the k·B largest of all rows and latents.

BatchTopK (Bussmann et al. 2024, arXiv:2412.06410), over the whole mesh: the
k·B-th largest pre-activation of the batch is found from counts, and what
reaches it is active. A shard looks at some candidates of every row; rows that
may have more of them, which it knows from a bound, are looked at once more.
Where that is not enough either the caller is told, and does it all densely.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops import topk_mask
from sae_jax.ops.topk_encode import api as topk_api
from sae_jax.sae import lines as lines_lib
from sae_jax.sae import nested

# Candidates of a row, over the average row's pairs. At the start, when a row's
# pre-activations are in proportion to its norm, rows of more than average norm
# have more; once a dictionary is trained few have.
_TIMES = 4
_LATE_TIMES = 32  # of the rows that are looked at once more
# Of rows that all have 4 times the average there cannot be more than a quarter.
# They are looked at in this many parts, as far as there are such rows.
_LATE_PARTS = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Selection:
  """A shard's active pairs; `complete`: no shard has missed one."""

  runs: lines_lib.Runs
  complete: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Candidates:
  """Of every row, and more of some rows; a row's are in one of both."""

  values_BC: jax.Array
  indices_BC: jax.Array
  late_values_HC: jax.Array
  late_indices_HC: jax.Array
  late_row_H: jax.Array
  kth_T: jax.Array
  missed: jax.Array  # bool, of this shard


def select(
  params, inputs_BD: jax.Array, spec, fewer: jax.Array | None = None
) -> Selection:
  """This shard's pairs among the k·B largest of all rows and latents.

  The same on every mesh up to the rounding of the products. All that tie with
  the last one are taken. A NaN wins, so that it reaches the loss.

  Args:
    params: this shard's parameters.
    inputs_BD: this shard's rows, as the encoder takes them.
    spec: `losses.LossSpec`.
    fewer: takes the place of `spec.k`, and is at most that.
  """
  found = _candidates(params, inputs_BD, spec, wanted(inputs_BD, spec, fewer))
  count = nested.levels(spec).count

  def runs(values, indices, row):
    level = pair_levels(values, indices, found.kth_T, params.latents, spec)
    # relu keeps a NaN, so that it reaches the loss.
    values = jax.nn.relu(values).astype(inputs_BD.dtype)
    return lines_lib.runs(
      values, indices, level, row, count, in_order=not spec.prefixes
    )

  row_B = jnp.arange(inputs_BD.shape[0], dtype=jnp.int32)
  all_runs = lines_lib.join(
    runs(found.values_BC, found.indices_BC, row_B),
    runs(found.late_values_HC, found.late_indices_HC, found.late_row_H),
  )
  return Selection(all_runs, ~_on_any_shard(found.missed, spec))


def wanted(inputs_BD: jax.Array, spec, fewer: jax.Array | None) -> jax.Array:
  """How many pairs the batch has up to and with every level, [T] int32.

  One number if levels are not a matter of rank.
  """
  rows = inputs_BD.shape[0]
  if spec.data_axis is not None:
    rows *= lax.axis_size(spec.data_axis)
  k = jnp.asarray(spec.k if fewer is None else fewer, jnp.int32)
  times = (1, nested.MULTI_TOPK) if spec.multi_topk else (1,)
  return rows * k * jnp.array(times, jnp.int32)


def pair_levels(
  values: jax.Array, latent: jax.Array, kth_T: jax.Array, latents: int, spec
) -> jax.Array:
  """Levels of pre-activations; those that are not active have one past the end.

  Args:
    values: pre-activations, of any shape.
    latent: which of the shard's latents they are of.
    kth_T: what `wanted` of them reach, as `topk_mask.ordered_keys`.
    latents: of this shard.
    spec: `losses.LossSpec`.
  """
  count = nested.levels(spec).count
  key = topk_mask.ordered_keys(values)
  if spec.prefixes:
    level = nested.prefix_levels(latent, latents, spec)
    level = jnp.where(key >= kth_T[0], level, count)
  else:
    level = jnp.zeros(values.shape, jnp.int32)
    for kth in kth_T:
      level += (key < kth).astype(jnp.int32)
  return jnp.where(values <= 0, count, level)


def kth_keys(counts, wanted_T: jax.Array, dtype, digit: int) -> jax.Array:
  """The largest keys that enough pre-activations of all shards reach, [T].

  Args:
    counts: `counts(key_N)`: how many pre-activations of all shards reach each.
    wanted_T: how many are enough.
    dtype: of the keys, uint32 or uint64.
    digit: bits that are found at once.
  """
  bits = jnp.iinfo(dtype).bits
  guess_N = jnp.arange(1, 1 << digit, dtype=dtype)

  def search(wanted):
    def refine(i, kth):
      shift = (bits - digit * (i + 1)).astype(dtype)
      # Counts fall as guesses rise: the number of those that are reached often
      # enough is the digit.
      enough_N = counts(kth | (guess_N << shift)) >= wanted
      return kth | (jnp.sum(enough_N, dtype=dtype) << shift)

    return lax.fori_loop(0, bits // digit, refine, jnp.zeros((), dtype))

  return jnp.stack([search(wanted) for wanted in wanted_T])


def _kth_of(arrays: Sequence[jax.Array], wanted_T, spec):
  """`kth_keys` of pre-activations that are at hand."""
  keys = [topk_mask.ordered_keys(array_RC) for array_RC in arrays]

  def counts(key_N):
    reached = sum(
      jnp.sum(
        key_RC[None] >= key_N[:, None, None], axis=(1, 2), dtype=jnp.int32
      )
      for key_RC in keys
    )
    return lax.psum(reached, spec.axes) if spec.axes else reached

  # One bit at a time reads the least, four at a time wait the least.
  return kth_keys(counts, wanted_T, keys[0].dtype, 4 if spec.axes else 1)


def _may_miss(bound_B, kth_T):
  """Rows that may have an active latent which is not among the candidates."""
  reaches_B = topk_mask.ordered_keys(bound_B) >= kth_T[-1]
  return reaches_B & ~(bound_B <= 0)


def _on_any_shard(flag, spec):
  flag = flag.astype(jnp.int32)
  for axis in spec.axes:
    flag = lax.pmax(flag, axis)
  return flag > 0


def _candidates(params, inputs_BD, spec, wanted_T) -> _Candidates:
  dtype = spec.matmul_dtype or inputs_BD.dtype
  x_BD = inputs_BD.astype(dtype)
  encoder = params.w_enc_FD.astype(dtype), params.b_enc_F
  rows, latents = x_BD.shape[0], params.latents
  shards = 1 if spec.latent_axis is None else lax.axis_size(spec.latent_axis)
  k = nested.pairs_per_row(spec)
  # Shards do not share evenly: Matryoshka's first latents fire most.
  few = min(latents, max(-(-_TIMES * k // shards), k))
  many = min(latents, _LATE_TIMES * k)
  part = -(-rows // (_TIMES * _LATE_PARTS))
  late = part * _LATE_PARTS
  found = topk_api.topk_candidates(
    x_BD, *encoder, few, implementation=spec.implementation
  )
  bound_B = _bound(found, few == latents)
  kth_T = _kth_of([found.values_BK], wanted_T, spec)
  missing_B = _may_miss(bound_B, kth_T)

  nothing = (
    jnp.full((late, many), -jnp.inf, found.values_BK.dtype),
    jnp.zeros((late, many), jnp.int32),
  )

  def look_again():
    (row_H,) = jnp.nonzero(missing_B, size=late, fill_value=rows)
    row_H = row_H.astype(jnp.int32)

    def look(turn, more):
      row_P = lax.dynamic_slice_in_dim(row_H, turn * part, part)
      x_PD = x_BD.at[row_P].get(mode="fill", fill_value=0)
      found = topk_api.exactly(x_PD, *encoder, many)
      return jax.tree.map(
        lambda all_HC, of_PC: lax.dynamic_update_slice_in_dim(
          all_HC, of_PC, turn * part, 0
        ),
        more,
        (found.values_BK, found.indices_BK),
      )

    turns = jnp.minimum(-(-jnp.sum(missing_B) // part), _LATE_PARTS)
    late_HC, late_indices_HC = lax.fori_loop(0, turns, look, nothing)
    late_HC = jnp.where((row_H < rows)[:, None], late_HC, -jnp.inf)
    values_BC = jnp.where(missing_B[:, None], -jnp.inf, found.values_BK)
    kth_T = _kth_of([values_BC, late_HC], wanted_T, spec)
    missed = jnp.sum(missing_B) > late
    if many < latents:
      missed |= jnp.any(_may_miss(late_HC[:, -1], kth_T))
    row_H = jnp.minimum(row_H, rows - 1)
    return values_BC, late_HC, late_indices_HC, row_H, kth_T, missed

  def as_found():
    return (
      found.values_BK,
      *nothing,
      jnp.zeros((late,), jnp.int32),
      kth_T,
      jnp.zeros((), bool),
    )

  values_BC, *rest = lax.cond(
    _on_any_shard(jnp.any(missing_B), spec), look_again, as_found
  )
  return _Candidates(values_BC, found.indices_BK, *rest)


def _bound(found, are_all):
  """What no latent exceeds that is not among a row's candidates."""
  if are_all and found.bound_B is None:
    return jnp.full_like(found.values_BK[:, 0], -jnp.inf)
  last_B = found.values_BK[:, -1]
  if found.bound_B is None:
    return last_B
  return found.bound_B if are_all else jnp.maximum(last_B, found.bound_B)
