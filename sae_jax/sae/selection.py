# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents reconstruct a row: the top-k over all shards of the latents.

A shard finds candidates among its own latents and learns from counts how many
of them win; candidates themselves do not travel. Where candidates may be too
few, a certificate says so and the batch is done again by the exact path, inside
the compiled program.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops.topk_encode import api as topk_api
from sae_jax.ops.topk_encode import approx, buckets, sharded
from sae_jax.ops.topk_encode import candidates as candidates_lib
from sae_jax.sae import dictionary

_RECALL_ROWS = 16  # per data shard, that an approximate top-k is checked on


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Selection:
  """A shard's part of the top-k; the scalars are over all shards.

  A row's winners come first, by value and then by latent; all other slots are
  zero. `redone`: 1 if the exact path had to do it again. `recall`: the share of
  the exact top-k that an approximate one found in the first rows, 1 for an
  exact one.
  """

  values_BK: jax.Array  # after the ReLU, in the dtype of the rows
  indices_BK: jax.Array  # int32, of this shard's latents
  redone: jax.Array
  recall: jax.Array


def select(
  params: dictionary.Params,
  centred_BD: jax.Array,
  spec,
  fewer: jax.Array | None = None,
) -> Selection:
  """This shard's winners among the k best pre-activations of all shards.

  The same on every mesh up to the rounding of the products: ties go to the
  lower latent of all shards. A NaN wins, so that it reaches the loss.

  Args:
    params: this shard's parameters.
    centred_BD: this shard's rows, x − b_dec.
    spec: `losses.LossSpec`.
    fewer: takes the place of `spec.k`, and is at most that.
  """
  dtype = spec.matmul_dtype or centred_BD.dtype
  k = min(spec.k, params.latents)
  encoder = (
    centred_BD.astype(dtype),
    params.w_enc_FD.astype(dtype),
    params.b_enc_F,
  )

  def choose(found):
    """Values, latents, how many win, and the k-th value of all shards."""
    count_B, kth_B = sharded.exchange(
      found.values_BK, spec.k, spec.latent_axis, fewer
    )
    # As wide as what doing it again finds; indices stay in range.
    missing = ((0, 0), (0, k - found.values_BK.shape[1]))
    return (
      jnp.pad(found.values_BK, missing),
      jnp.pad(found.indices_BK, missing),
      count_B,
    ), kth_B

  if spec.recall_target is None:
    found = _candidates(*encoder, k, spec)
  else:
    found = approx.candidates(*encoder, k, spec.recall_target)
  best, kth_B = choose(found)
  redone = jnp.zeros((), jnp.int32)
  if found.bound_B is not None:
    # All shards take the same branch: there is an exchange in it.
    redone = 1 - found.certified(kth_B).astype(jnp.int32)
    for axis in spec.axes:
      redone = lax.pmax(redone, axis)
    best = lax.cond(
      redone > 0,
      lambda: choose(topk_api.exactly(*encoder, k))[0],
      lambda: best,
    )
  pre_BK, indices_BK, count_B = best
  kept_BK = jnp.arange(k)[None, :] < count_B[:, None]
  recall = jnp.ones(())
  if spec.recall_target is not None:
    few = slice(_RECALL_ROWS)
    _, kth_R = choose(topk_api.exactly(encoder[0][few], *encoder[1:], k))
    recall = _recall(pre_BK[few], kept_BK[few], kth_R, spec)
  # relu keeps a NaN, so that it reaches the loss.
  values_BK = jnp.where(kept_BK, jax.nn.relu(pre_BK), 0)
  return Selection(
    values_BK.astype(centred_BD.dtype), indices_BK, redone, recall
  )


def _candidates(x_BD, w_enc_FD, b_enc_F, k, spec):
  """The shard's best: as many as hardly ever are too few, with a bound.

  Of the K winners of a row about K/n lie on one of n shards. What is sought is
  exceeded once in 1/ODDS batches if winners lie at random; the bound tells.
  """
  sought = k
  if spec.latent_axis is not None:
    shards = lax.axis_size(spec.latent_axis)
    rows = x_BD.shape[0]
    sought = next(
      n
      for n in range(1, k + 1)
      if n == k or buckets.odds(spec.k, rows, n, shards) <= buckets.ODDS
    )
  found = topk_api.topk_candidates(
    x_BD, w_enc_FD, b_enc_F, sought, implementation=spec.implementation
  )
  if sought == k:
    return found
  bound_B = found.values_BK[:, -1]
  if found.bound_B is not None:
    bound_B = jnp.maximum(bound_B, found.bound_B)
  return candidates_lib.Candidates(found.values_BK, found.indices_BK, bound_B)


def _recall(pre_RK, kept_RK, kth_R, spec):
  """Share of an approximate selection that reaches the exact k-th value."""
  counts = (
    jnp.sum(kept_RK & (pre_RK >= kth_R[:, None])),
    jnp.sum(kept_RK),
  )
  for axis in spec.axes:
    counts = lax.psum(counts, axis)
  right, wanted = counts
  return right / wanted
