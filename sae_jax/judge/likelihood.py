# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How likely a model finds tokens that are there: pure, to be jitted."""

from typing import Any

import jax
import jax.numpy as jnp

from sae_jax.lm import model as model_lib

# Logits that exist at once, of all devices together: 512 MiB in f32.
_LOGITS = 1 << 27


def mean_logprob(
  model: model_lib.Decoder,
  h_BTD: jax.Array,
  tokens_BT: jax.Array,
  scored_BR: jax.Array,
) -> jax.Array:
  """Mean of log p(token | before) at the scored positions, f32 [B]; 0 for none.

  Logits exist for a block of positions at a time, and are computed again on
  the way back.
  """
  is_BR = scored_BR >= 0
  weight_BR = is_BR / jnp.maximum(jnp.sum(is_BR, axis=1, keepdims=True), 1)
  before_BRD = picked(h_BTD, scored_BR - 1)
  token_BR = picked(tokens_BT[..., None], scored_BR)[..., 0]

  @jax.checkpoint
  def part(h_BrD, token_Br, weight_Br):
    logits_BrV = model.unembed(h_BrD)
    chosen_Br1 = jnp.take_along_axis(logits_BrV, token_Br[..., None], axis=-1)
    logp_Br = chosen_Br1[..., 0] - jax.nn.logsumexp(logits_BrV, axis=-1)
    return jnp.sum(weight_Br * logp_Br, axis=-1)

  blocks = position_blocks(
    (before_BRD, token_BR, weight_BR), model.config.vocab_size
  )
  return jnp.sum(jax.lax.map(lambda xs: part(*xs), blocks), axis=0)


def picked(x_BTD: jax.Array, at_BS: jax.Array) -> jax.Array:
  """Some positions of each sequence, [B, S, D]; 0 where `at_BS` is below 0."""
  is_BS1 = (at_BS >= 0)[..., None]
  at_BS1 = jnp.maximum(at_BS, 0)[..., None]
  return jnp.where(is_BS1, jnp.take_along_axis(x_BTD, at_BS1, axis=1), 0)


def position_blocks(arrays_BT: tuple[jax.Array, ...], vocab: int) -> Any:
  """Splits axis 1 into blocks whose logits fit in memory, and puts it first.

  Zeros are appended where the last block is short.
  """
  b, t = arrays_BT[0].shape[:2]
  step = max(1, min(t, _LOGITS // (b * vocab)))
  short = -t % step

  def split(x):
    x = jnp.pad(x, ((0, 0), (0, short), *((0, 0),) * (x.ndim - 2)))
    return jnp.moveaxis(x.reshape(b, -1, step, *x.shape[2:]), 1, 0)

  return jax.tree.map(split, arrays_BT)
