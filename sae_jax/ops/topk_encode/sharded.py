# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The exact top-k of latents that are split over a mesh axis.

Only counts travel: 121 per row, whatever K is, and one of every shard.
Gathering the candidates would take K · shards per row and a sort of them on
every shard; for v5p:4x4x4 XLA spells that gather as an all-reduce, twice as
much again.
"""

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops import topk_mask


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

  Runs inside `shard_map`. The winners of a shard are its first candidates, so
  that a count says it all. Ties go to the lower latent, see `topk_mask`, as
  they do on one device.

  Args:
    values_BK: the shard's own best candidates in the order of `topk_encode`. If
      they are fewer than min(k, latents of the shard), all of them may win, and
      the caller has to see from the k-th value that no other latent reaches it.
    k: how many win, of all shards' candidates.
    axis_name: the axis that latents are split over; None: they are not.
    fewer: takes the place of k, 1 <= fewer <= k.
  """
  if axis_name is None:
    count = min(k, values_BK.shape[1])
    count = count if fewer is None else jnp.minimum(count, fewer)
    count_B = jnp.full(values_BK.shape[:1], count, jnp.int32)
    return count_B, values_BK[:, count - 1]
  wanted = k if fewer is None else fewer
  chosen_BK = topk_mask.topk_mask(values_BK, wanted, axis_name, digit=4)
  kth_B = jnp.min(jnp.where(chosen_BK, values_BK, jnp.inf), axis=1)
  count_B = jnp.sum(chosen_BK, axis=1, dtype=jnp.int32)
  return count_B, lax.pmin(kth_B, axis_name)
