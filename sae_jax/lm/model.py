# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The decoder as flax modules: one block, stacked over layers.

Shapes: B sequences, T new positions, S key slots, D model, N query heads, K
key-value heads, G = N / K, H head width, R rotated pairs, F MLP width, V words,
L layers. Weights keep Hugging Face's [out, in] order. Norms, rotations and the
softmax are f32; matrix products take the weights' dtype and accumulate in f32.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from sae_jax.lm import config as config_lib

# Beyond this many queries, attention runs over blocks of them, so that the
# scores take B * N * _QUERY_BLOCK * S floats and not B * N * S * S.
_QUERIES_AT_ONCE = 1024
_QUERY_BLOCK = 256

_ACTIVATIONS = {
  "silu": jax.nn.silu,
  "relu": jax.nn.relu,
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KvCache:
  """Keys and values of every layer and slot seen so far."""

  k_LBSKH: jax.Array
  v_LBSKH: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Positions:
  """What attention knows of the slots; the same for every layer.

  `start` is the slot of the first query. The leading axis of the rotations is
  1, or 2 where sliding layers turn at frequencies of their own.
  """

  start: jax.Array  # int32 []
  mask_BS: jax.Array  # bool: which key slots hold a token
  cos_xBTR: jax.Array
  sin_xBTR: jax.Array


def _einsum(equation: str, x: jax.Array, w: jax.Array) -> jax.Array:
  """A product of equal-dtype arrays with an f32 result.

  f32 inputs mean f32 products: TPUs and GPUs would otherwise round them to
  bf16 or tf32.
  """
  full = x.dtype == jnp.float32
  return jnp.einsum(
    equation,
    x,
    w,
    precision=jax.lax.Precision.HIGHEST if full else None,
    preferred_element_type=jnp.float32,
  )


def _param(shape: tuple[int, ...], dtype, present: bool = True):
  """A weight that is filled from a checkpoint, or None."""
  return nnx.Param(jnp.zeros(shape, dtype)) if present else None


def _add_bias(x: jax.Array, bias: nnx.Param | None) -> jax.Array:
  if bias is None:
    return x
  value = bias[...].astype(x.dtype)
  return x + value.reshape((1,) * (x.ndim - value.ndim) + value.shape)


class Norm(nnx.Module):
  """RMS norm (of gemma: times 1 + weight) or layer norm, over the last axis."""

  def __init__(self, config: config_lib.ModelConfig, width: int, dtype):
    self.kind = config.norm
    self.eps = config.norm_eps
    self.scale = _param((width,), dtype)
    self.bias = _param((width,), dtype, config.norm == "layer")

  def __call__(self, x: jax.Array) -> jax.Array:
    y = x.astype(jnp.float32)
    if self.kind == "layer":
      y = y - jnp.mean(y, axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(
      jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps
    )
    scale = self.scale[...].astype(jnp.float32)
    scale = 1.0 + scale if self.kind == "rms_plus_one" else scale
    y = y * scale.reshape((1,) * (y.ndim - 1) + scale.shape)
    return _add_bias(y, self.bias).astype(x.dtype)


class Attention(nnx.Module):
  """Grouped-query attention with rotary positions and an optional window."""

  def __init__(self, config: config_lib.ModelConfig, dtype):
    self.config = c = config
    d, n, k, h = c.d_model, c.num_heads, c.num_kv_heads, c.head_dim
    self.w_q_NHD = _param((n, h, d), dtype)
    self.w_k_KHD = _param((k, h, d), dtype)
    self.w_v_KHD = _param((k, h, d), dtype)
    self.w_o_DNH = _param((d, n, h), dtype)
    self.b_q_NH = _param((n, h), dtype, c.qkv_bias)
    self.b_k_KH = _param((k, h), dtype, c.qkv_bias)
    self.b_v_KH = _param((k, h), dtype, c.qkv_bias)
    self.b_o_D = _param((d,), dtype, c.out_bias)
    self.q_norm = Norm(c, h, dtype) if c.qk_norm else None
    self.k_norm = Norm(c, h, dtype) if c.qk_norm else None

  def __call__(
    self,
    x_BTD: jax.Array,
    at: Positions,
    slides: jax.Array,
    cache: KvCache | None,
    layer: jax.Array,
  ) -> tuple[jax.Array, KvCache | None]:
    """Returns what attention adds [B, T, D], and the cache with its keys."""
    c, dtype = self.config, x_BTD.dtype
    q = _add_bias(
      _einsum("btd,nhd->btnh", x_BTD, self.w_q_NHD[...]), self.b_q_NH
    )
    k = _add_bias(
      _einsum("btd,khd->btkh", x_BTD, self.w_k_KHD[...]), self.b_k_KH
    )
    v = _add_bias(
      _einsum("btd,khd->btkh", x_BTD, self.w_v_KHD[...]), self.b_v_KH
    )
    if self.q_norm is not None and self.k_norm is not None:
      q, k = self.q_norm(q), self.k_norm(k)
    if c.rotary_dims:
      kind = slides.astype(jnp.int32) if at.cos_xBTR.shape[0] == 2 else 0
      cos_BTR, sin_BTR = at.cos_xBTR[kind], at.sin_xBTR[kind]
      q, k = _rotate(q, cos_BTR, sin_BTR), _rotate(k, cos_BTR, sin_BTR)
    q_BTNH, k_BSKH, v_BSKH = q.astype(dtype), k.astype(dtype), v.astype(dtype)
    if cache is not None:
      where = (layer, 0, at.start, 0, 0)
      cache = KvCache(
        jax.lax.dynamic_update_slice(cache.k_LBSKH, k_BSKH[None], where),
        jax.lax.dynamic_update_slice(cache.v_LBSKH, v_BSKH[None], where),
      )
      k_BSKH, v_BSKH = cache.k_LBSKH[layer], cache.v_LBSKH[layer]
    mixed_BTNH = _attend(c, q_BTNH, k_BSKH, v_BSKH, at, slides)
    out = _einsum("btnh,dnh->btd", mixed_BTNH, self.w_o_DNH[...])
    return _add_bias(out, self.b_o_D).astype(dtype), cache


def _rotate(x_BTNH: jax.Array, cos_BTR: jax.Array, sin_BTR: jax.Array):
  """Turns the first 2R dims of every head, pairing dim i with dim i + R."""
  pairs = cos_BTR.shape[-1]
  cos, sin = cos_BTR[:, :, None, :], sin_BTR[:, :, None, :]
  first, second = x_BTNH[..., :pairs], x_BTNH[..., pairs : 2 * pairs]
  first, second = first.astype(jnp.float32), second.astype(jnp.float32)
  turned = [first * cos - second * sin, second * cos + first * sin]
  rest = x_BTNH[..., 2 * pairs :].astype(jnp.float32)
  return jnp.concatenate([*turned, rest], axis=-1)


def _attend(
  c: config_lib.ModelConfig,
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  at: Positions,
  slides: jax.Array,
) -> jax.Array:
  """Softmax attention [B, T, N, H], over blocks of queries when T is long."""
  b, t = q_BTNH.shape[:2]
  q_BTKGH = q_BTNH.reshape(b, t, c.num_kv_heads, -1, c.head_dim)
  slot_S = jnp.arange(k_BSKH.shape[1])

  def block(q_BTKGH, slot_T):
    behind_TS = slot_T[:, None] - slot_S[None, :]
    seen_TS = behind_TS >= 0
    if c.window:
      seen_TS &= (behind_TS < c.window) | ~slides
    seen_BTS = seen_TS[None] & at.mask_BS[:, None, :]
    s_BKGTS = _einsum("btkgh,bskh->bkgts", q_BTKGH, k_BSKH)
    s_BKGTS = _softcap(s_BKGTS * c.attention_scale, c.attention_softcap)
    # Not -inf: a padding query sees nothing, and its softmax must not be NaN.
    s_BKGTS = jnp.where(seen_BTS[:, None, None], s_BKGTS, -1e30)
    p_BKGTS = jax.nn.softmax(s_BKGTS, axis=-1).astype(v_BSKH.dtype)
    return _einsum("bkgts,bskh->btkgh", p_BKGTS, v_BSKH).astype(v_BSKH.dtype)

  slot_T = at.start + jnp.arange(t)
  if t <= _QUERIES_AT_ONCE:
    return block(q_BTKGH, slot_T).reshape(q_BTNH.shape)
  short = -t % _QUERY_BLOCK
  count = (t + short) // _QUERY_BLOCK
  q_BTKGH = jnp.pad(q_BTKGH, ((0, 0), (0, short), (0, 0), (0, 0), (0, 0)))
  q_xBTKGH = jnp.moveaxis(
    q_BTKGH.reshape(b, count, _QUERY_BLOCK, *q_BTKGH.shape[2:]), 1, 0
  )
  slot_xT = (at.start + jnp.arange(t + short)).reshape(count, _QUERY_BLOCK)
  y_xBTKGH = jax.lax.map(lambda args: block(*args), (q_xBTKGH, slot_xT))
  y_BTNH = jnp.moveaxis(y_xBTKGH, 0, 1).reshape(b, t + short, *q_BTNH.shape[2:])
  return y_BTNH[:, :t]


def _softcap(x: jax.Array, cap: float) -> jax.Array:
  return cap * jnp.tanh(x / cap) if cap else x


class Mlp(nnx.Module):
  """`down(act(gate(x)) * up(x))`, or without a gate `down(act(up(x)))`."""

  def __init__(self, config: config_lib.ModelConfig, dtype):
    d, f = config.d_model, config.mlp_width
    gated, biased = config.gated_mlp, config.mlp_bias
    self.activation = config.activation
    self.w_gate_FD = _param((f, d), dtype, gated)
    self.w_up_FD = _param((f, d), dtype)
    self.w_down_DF = _param((d, f), dtype)
    self.b_gate_F = _param((f,), dtype, gated and biased)
    self.b_up_F = _param((f,), dtype, biased)
    self.b_down_D = _param((d,), dtype, biased)

  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    act = _ACTIVATIONS[self.activation]
    y_BTF = _add_bias(
      _einsum("btd,fd->btf", x_BTD, self.w_up_FD[...]), self.b_up_F
    )
    if self.w_gate_FD is None:
      y_BTF = act(y_BTF)
    else:
      gate_BTF = _einsum("btd,fd->btf", x_BTD, self.w_gate_FD[...])
      y_BTF = act(_add_bias(gate_BTF, self.b_gate_F)) * y_BTF
    y_BTD = _einsum(
      "btf,df->btd", y_BTF.astype(x_BTD.dtype), self.w_down_DF[...]
    )
    return _add_bias(y_BTD, self.b_down_D).astype(x_BTD.dtype)


class Block(nnx.Module):
  """One layer: attention and MLP, added to the residual stream."""

  def __init__(self, config: config_lib.ModelConfig, dtype):
    d = config.d_model
    self.parallel = config.parallel_residual
    self.attention = Attention(config, dtype)
    self.mlp = Mlp(config, dtype)
    self.attention_norm = Norm(config, d, dtype)
    self.mlp_norm = Norm(config, d, dtype)
    post = config.post_norms
    self.attention_post_norm = Norm(config, d, dtype) if post else None
    self.mlp_post_norm = Norm(config, d, dtype) if post else None

  def __call__(
    self,
    h_BTD: jax.Array,
    at: Positions,
    slides: jax.Array,
    cache: KvCache | None,
    layer: jax.Array,
    touch: Callable[[str, jax.Array], jax.Array],
  ) -> tuple[jax.Array, KvCache | None]:
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
    self.embed_VD = _param((v, d), dtype)
    self.position_PD = _param(
      (config.learned_positions, d), dtype, config.learned_positions > 0
    )
    self.final_norm = Norm(config, d, dtype) if with_head else None
    untied = with_head and not config.tied_embedding
    self.head_VD = _param((v, d), dtype, untied)
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

  def unembed(self, h_BTD: jax.Array) -> jax.Array:
    """Final norm, head and soft-cap: f32 logits [B, T, V] of a stream."""
    logits_BTV = _einsum("btd,vd->btv", self.final_norm(h_BTD), self.unembed_VD)
    return _softcap(logits_BTV, self.config.logit_softcap)


def positions(
  config: config_lib.ModelConfig,
  mask_BS: jax.Array,
  start: jax.Array | int,
  count: int,
) -> tuple[Positions, jax.Array]:
  """Where `count` new tokens from slot `start` stand.

  A token's position is the number of tokens before it in its sequence, so
  padding on either side does not count.

  Returns:
    the attention's view, and position_BT int32.
  """
  position_BS = jnp.maximum(jnp.cumsum(mask_BS, axis=1, dtype=jnp.int32) - 1, 0)
  position_BT = jax.lax.dynamic_slice_in_dim(position_BS, start, count, axis=1)
  tables = [config.rope_frequencies]
  local = config.rope_frequencies_local
  if any(config.sliding_layers) and local != config.rope_frequencies:
    tables.append(local)
  frequency_xR = jnp.asarray(tables, jnp.float32)
  angle_xBTR = (
    position_BT.astype(jnp.float32)[None, :, :, None]
    * frequency_xR[:, None, None, :]
  )
  at = Positions(
    jnp.asarray(start, jnp.int32),
    mask_BS,
    jnp.cos(angle_xBTR),
    jnp.sin(angle_xBTR),
  )
  return at, position_BT
