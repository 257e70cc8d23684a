# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""CPU: chunks of rows, and an exact top-k by levels inside a chunk.

A chunk's products are consumed while they are still in the cache. A level takes
the maximum of every 8 neighbours and keeps the K best groups, found by the next
level; then it searches the 8·K members of those groups. XLA's top-k costs 8 ns
an element here, so that few elements matter more than few levels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops import rows
from sae_jax.ops.topk_encode import candidates as candidates_lib
from sae_jax.ops.topk_encode import reference

GROUP = 8  # neighbours; groups of 4 and 16 take a tenth longer
_CHUNK = 512  # rows; 256 measured the same, 128 and 2048 slower


def grouped_top_k(
  pre_BF: jax.Array, k: int, group: int = GROUP
) -> tuple[jax.Array, jax.Array]:
  """`lax.top_k`, including its order of ties, in as many levels as pay.

  Exact: let latent f of a group G that was not kept be among the K best. K
  groups precede G by (maximum descending, position ascending), so each holds
  a latent that is greater than f's value, or equal and at a lower position
  than f. That makes K latents ahead of f, a contradiction. Kept groups are
  put in order of position, so that a level breaks ties as the next one does.
  (A NaN ranks with +inf on all levels but the last: a row that holds both
  keeps one of them.)
  """
  return _grouped(pre_BF, k, group, lambda part, _: part)


def _grouped(
  raw_BF: jax.Array,
  k: int,
  group: int,
  finish: Callable[[jax.Array, jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
  """The top-k of `finish(raw_BF, latents)`, which is never stored whole.

  `finish` is element by element; `latents` are broadcast against its values.
  """
  count, latents = raw_BF.shape
  groups = -(-latents // group)
  latent_F = jnp.arange(groups * group, dtype=jnp.int32)
  if k * 2 > groups:
    return tuple(lax.top_k(finish(raw_BF, latent_F[None, :latents]), k))
  padding = groups * group - latents
  if padding:
    raw_BF = jnp.pad(raw_BF, ((0, 0), (0, padding)))
  raw_BGN = raw_BF.reshape(count, groups, group)
  latent_GN = latent_F.reshape(groups, group)

  def finish_or_pad(part, latent):
    if not padding:
      return finish(part, latent)
    # Ties at -inf resolve to lower latents, so padding never wins.
    part = finish(part, jnp.minimum(latent, latents - 1))
    return jnp.where(latent < latents, part, -jnp.inf)

  pre_BGN = finish_or_pad(raw_BGN, latent_GN[None])
  # XLA's maximum over an axis may drop a NaN; it does not drop an infinity.
  ranked_BGN = jnp.where(jnp.isnan(pre_BGN), jnp.inf, pre_BGN)
  _, kept_BK = grouped_top_k(jnp.max(ranked_BGN, axis=-1), k, group)
  kept_BK = jnp.sort(kept_BK, axis=-1)
  latent_BKN = latent_GN[kept_BK]
  candidates_BKN = finish_or_pad(
    jnp.take_along_axis(raw_BGN, kept_BK[:, :, None], axis=1), latent_BKN
  )
  values_BK, place_BK = lax.top_k(candidates_BKN.reshape(count, k * group), k)
  group_BK = jnp.take_along_axis(kept_BK, place_BK // group, axis=1)
  return values_BK, group_BK * group + place_BK % group


def candidates(
  x_BD: jax.Array, w_enc_FD: jax.Array, b_enc_F: jax.Array, k: int
) -> candidates_lib.Candidates:
  """See `api.topk_encode`."""

  def encode_chunk(x_CD):
    raw_CF = reference.products(x_CD, w_enc_FD)
    return candidates_lib.Candidates(
      *_grouped(
        raw_CF,
        k,
        GROUP,
        lambda raw, latent: reference.add_bias(raw, b_enc_F[latent]),
      )
    )

  return rows.map_chunks(encode_chunk, _CHUNK, x_BD)
