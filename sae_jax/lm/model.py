# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The decoder as flax modules: one block, stacked over layers.

Shapes: B sequences, T new positions, D model, F MLP width, V words, P rows of
the position table, L layers. Weights keep Hugging Face's [out, in] order.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from sae_jax import errors
from sae_jax.lm import attention as attention_lib
from sae_jax.lm import config as config_lib

_ACTIVATIONS = {
  "silu": jax.nn.silu,
  "relu": jax.nn.relu,
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


class Mlp(nnx.Module):
  """`down(act(gate(x)) * up(x))`, or without a gate `down(act(up(x)))`."""

  def __init__(self, config: config_lib.ModelConfig, dtype):
    d, f = config.d_model, config.mlp_width
    gated, biased = config.gated_mlp, config.mlp_bias
    self.activation = config.activation
    self.w_gate_FD = attention_lib.param_if(gated, (f, d), dtype)
    self.w_up_FD = attention_lib.param((f, d), dtype)
    self.w_down_DF = attention_lib.param((d, f), dtype)
    self.b_gate_F = attention_lib.param_if(gated and biased, (f,), dtype)
    self.b_up_F = attention_lib.param_if(biased, (f,), dtype)
    self.b_down_D = attention_lib.param_if(biased, (d,), dtype)

  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    act = _ACTIVATIONS[self.activation]
    y_BTF = attention_lib.add_bias(
      attention_lib.einsum("btd,fd->btf", x_BTD, self.w_up_FD[...]), self.b_up_F
    )
    if self.w_gate_FD is None:
      y_BTF = act(y_BTF)
    else:
      gate_BTF = attention_lib.einsum("btd,fd->btf", x_BTD, self.w_gate_FD[...])
      y_BTF = act(attention_lib.add_bias(gate_BTF, self.b_gate_F)) * y_BTF
    y_BTD = attention_lib.einsum(
      "btf,df->btd", y_BTF.astype(x_BTD.dtype), self.w_down_DF[...]
    )
    return attention_lib.add_bias(y_BTD, self.b_down_D).astype(x_BTD.dtype)


class Block(nnx.Module):
  """One layer: attention and MLP, added to the residual stream."""

  def __init__(self, config: config_lib.ModelConfig, dtype):
    d = config.d_model
    self.parallel = config.parallel_residual
    self.attention = attention_lib.Attention(config, dtype)
    self.mlp = Mlp(config, dtype)
    self.attention_norm = attention_lib.Norm(config, d, dtype)
    self.mlp_norm = attention_lib.Norm(config, d, dtype)
    post = config.post_norms
    self.attention_post_norm = (
      attention_lib.Norm(config, d, dtype) if post else None
    )
    self.mlp_post_norm = attention_lib.Norm(config, d, dtype) if post else None

  def __call__(
    self,
    h_BTD: jax.Array,
    at: attention_lib.Positions,
    slides: jax.Array,
    cache: attention_lib.KvCache | None,
    layer: jax.Array,
    touch: Callable[[str, jax.Array], jax.Array],
  ) -> tuple[jax.Array, attention_lib.KvCache | None]:
    """Returns the stream after this layer, and the cache.

    `touch(site, x)` is called at every hook site in order and returns what the
    computation goes on with.
    """
    h_BTD = touch("resid_pre", h_BTD)
    y_BTD, cache = self.attention(
      self.attention_norm(h_BTD), at, slides, cache, layer
    )
    if self.attention_post_norm is not None:
      y_BTD = self.attention_post_norm(y_BTD)
    mid_BTD = h_BTD + touch("attn_out", y_BTD)
    if not self.parallel:
      mid_BTD = touch("resid_mid", mid_BTD)
    y_BTD = self.mlp(self.mlp_norm(h_BTD if self.parallel else mid_BTD))
    if self.mlp_post_norm is not None:
      y_BTD = self.mlp_post_norm(y_BTD)
    return touch("resid_post", mid_BTD + touch("mlp_out", y_BTD)), cache


class Decoder(nnx.Module):
  """Token embedding, the stacked blocks, and (when loaded) the head.

  Every array of `blocks` has a leading layer axis. `final_norm` and the head
  are None in a decoder of which only the first blocks are loaded.
  """

  def __init__(
    self,
    config: config_lib.ModelConfig,
    *,
    dtype,
    layers: int,
    with_head: bool,
  ):
    v, d = config.vocab_size, config.d_model
    self.config = config
    self.layers = layers
    self.embed_VD = attention_lib.param((v, d), dtype)
    places = config.learned_positions
    self.position_PD = attention_lib.param_if(places > 0, (places, d), dtype)
    norm = attention_lib.Norm(config, d, dtype)
    self.final_norm = norm if with_head else None
    untied = with_head and not config.tied_embedding
    self.head_VD = attention_lib.param_if(untied, (v, d), dtype)
    self.blocks = jax.tree.map(
      lambda x: jnp.zeros((layers, *x.shape), x.dtype), Block(config, dtype)
    )

  @property
  def dtype(self):
    return self.embed_VD[...].dtype

  @property
  def has_head(self) -> bool:
    return self.final_norm is not None

  @property
  def unembed_VD(self) -> jax.Array:
    return (self.embed_VD if self.head_VD is None else self.head_VD)[...]

  def embed(self, tokens_BT: jax.Array, position_BT: jax.Array) -> jax.Array:
    """The residual stream before the first block, [B, T, D]."""
    h_BTD = self.embed_VD[...][tokens_BT]
    if self.config.embed_scale != 1.0:
      # Rounded to the stream's dtype first, as the models were trained.
      h_BTD = h_BTD * jnp.asarray(self.config.embed_scale, h_BTD.dtype)
    if self.position_PD is not None:
      h_BTD = h_BTD + self.position_PD[...][position_BT]
    return h_BTD

  def normed(self, h: jax.Array) -> jax.Array:
    """The final norm, over the last axis.

    Raises:
      errors.InputError: it is not loaded.
    """
    if self.final_norm is None:
      raise errors.InputError(
        f"the final norm and head are not loaded, only {self.layers} layers of"
        f" {self.config.num_layers} are; load the model without layers="
      )
    return self.final_norm(h)

  def unembed(self, h_BTD: jax.Array) -> jax.Array:
    """Final norm, head and soft-cap: f32 logits [B, T, V] of a stream."""
    logits_BTV = attention_lib.einsum(
      "btd,vd->btv", self.normed(h_BTD), self.unembed_VD
    )
    return attention_lib.softcap(logits_BTV, self.config.logit_softcap)
