# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""CPU: chunks of rows, and an exact two-level top-k inside a chunk.

A chunk's pre-activations are consumed while they are still in the cache. The
first level takes the maximum of every 16 neighbouring latents and keeps the K
best groups; the second level searches the 16·K latents of those groups.
"""

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops import rows
from sae_jax.ops.topk_encode import candidates as candidates_lib
from sae_jax.ops.topk_encode import reference

GROUP = 16  # contiguous latents; 32 measured the same, strided groups slower
_CHUNK = 512  # rows; 256 measured the same, 2048 a third slower


def grouped_top_k(
  pre_BF: jax.Array, k: int, group: int = GROUP
) -> tuple[jax.Array, jax.Array]:
  """`lax.top_k`, including its order of ties, in two levels.

  Exact: let latent f of a group G that was not kept be among the K best. K
  groups precede G by (maximum descending, position ascending), so each holds
  a latent that is greater than f's value, or equal and at a lower position
  than f. That makes K latents ahead of f, a contradiction. Kept groups are
  put in order of position, so that the second level breaks ties alike. (A NaN
  ranks with +inf on the first level: a row that holds both keeps one of them.)
  """
  count, latents = pre_BF.shape
  groups = -(-latents // group)
  if k * 2 > groups:
    return tuple(lax.top_k(pre_BF, k))
  padding = groups * group - latents
  if padding:
    # Ties at -inf resolve to lower latents, so padding never wins.
    pre_BF = jnp.pad(pre_BF, ((0, 0), (0, padding)), constant_values=-jnp.inf)
  pre_BGN = pre_BF.reshape(count, groups, group)
  # XLA's maximum over an axis may drop a NaN; it does not drop an infinity.
  ranked_BGN = jnp.where(jnp.isnan(pre_BGN), jnp.inf, pre_BGN)
  _, kept_BK = lax.top_k(jnp.max(ranked_BGN, axis=-1), k)
  kept_BK = jnp.sort(kept_BK, axis=-1)
  candidates_BKN = jnp.take_along_axis(pre_BGN, kept_BK[:, :, None], axis=1)
  values_BK, place_BK = lax.top_k(candidates_BKN.reshape(count, k * group), k)
  group_BK = jnp.take_along_axis(kept_BK, place_BK // group, axis=1)
  return values_BK, group_BK * group + place_BK % group


def candidates(
  x_BD: jax.Array, w_enc_FD: jax.Array, b_enc_F: jax.Array, k: int
) -> candidates_lib.Candidates:
  """See `api.topk_encode`."""

  def encode_chunk(x_CD):
    pre_CF = reference.pre_activations(x_CD, w_enc_FD, b_enc_F)
    return candidates_lib.Candidates(*grouped_top_k(pre_CF, k))

  return rows.map_chunks(encode_chunk, _CHUNK, x_BD)
