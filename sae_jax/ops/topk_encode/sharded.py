# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The exact top-k of latents that are split over a mesh axis.

Only candidate values travel: B · shards · K numbers per row batch.
"""

import jax
import jax.numpy as jnp
from jax import lax


def winners(values_BK: jax.Array, k: int, axis_name: str | None) -> jax.Array:
  """How many of this shard's candidates are among the k best of all, [B]."""
  return exchange(values_BK, k, axis_name)[0]


def exchange(
  values_BK: jax.Array,
  k: int,
  axis_name: str | None,
  fewer: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """`winners`, and the k-th best value of all shards, [B] each.

  `fewer`: an array that takes the place of k, 1 <= fewer <= k.

  Runs inside `shard_map`. `values_BK` are the shard's own best candidates in
  the order of `topk_encode`, at least min(k, latents per shard) of them. The
  winners of a shard are then its first ones, so that a count says it all.
  Shard s holds lower latents than shard s + 1 and `lax.top_k` prefers lower
  positions, hence ties go to the lower latent as they do on one device.
  """
  if axis_name is None:
    count = min(k, values_BK.shape[1])
    count = count if fewer is None else jnp.minimum(count, fewer)
    count_B = jnp.full(values_BK.shape[:1], count, jnp.int32)
    return count_B, values_BK[:, count - 1]
  per_shard = values_BK.shape[1]
  all_BC = lax.all_gather(values_BK, axis_name, axis=1, tiled=True)
  # With fewer candidates than k in all, every one wins.
  count = min(k, all_BC.shape[1])
  best_BK, place_BK = lax.top_k(all_BC, count)
  mine_BK = place_BK // per_shard == lax.axis_index(axis_name)
  if fewer is not None:
    mine_BK &= jnp.arange(count)[None, :] < fewer
    count = jnp.minimum(count, fewer)
  return jnp.sum(mine_BK, axis=1, dtype=jnp.int32), best_BK[:, count - 1]
