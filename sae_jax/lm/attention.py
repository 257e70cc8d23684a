# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention, norms and positions of the decoder.

Shapes: B sequences, T new positions, S key slots, D model, N query heads, K
key-value heads, G = N / K, H head width, R rotated pairs, L layers. Norms,
rotations and the softmax are f32; matrix products take the weights' dtype and
accumulate in f32.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from sae_jax.lm import config as config_lib
from sae_jax.lm import low_rank

# Beyond this many queries, attention runs over blocks of them, so that the
# scores take B * N * _QUERY_BLOCK * S floats and not B * N * S * S.
_QUERIES_AT_ONCE = 1024
_QUERY_BLOCK = 256


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
  1, or 2 where sliding layers turn at frequencies of their own. In branched
  sequences a slot sees branch 0 and its own.
  """

  start: jax.Array  # int32 []
  mask_BS: jax.Array  # bool: which key slots hold a token
  cos_xBTR: jax.Array
  sin_xBTR: jax.Array
  branch_BS: jax.Array | None = None  # int32
  position_BS: jax.Array | None = None  # int32; given with branches


def einsum(
  equation: str, x: jax.Array, w: jax.Array | low_rank.LowRank
) -> jax.Array:
  """A product of equal-dtype arrays with an f32 result.

  f32 inputs mean f32 products: TPUs and GPUs would otherwise round them to
  bf16 or tf32. A corrected weight acts as two thin products beside its own.
  """
  if isinstance(w, low_rank.LowRank):
    of_x, of_w, out = equation.replace("->", ",").split(",")
    summed = "".join(axis for axis in of_w if axis not in out)
    kept = "".join(axis for axis in of_w if axis in out)
    thin = "".join(axis for axis in of_x if axis in out) + "r"
    y = einsum(f"{of_x},r{summed}->{thin}", x, w.a).astype(x.dtype)
    y = einsum(f"{thin},{kept}r->{out}", y, w.b)
    return einsum(equation, x, w.weight) + w.scale * y
  full = x.dtype == jnp.float32
  return jnp.einsum(
    equation,
    x,
    w,
    precision=jax.lax.Precision.HIGHEST if full else None,
    preferred_element_type=jnp.float32,
  )


def param(shape: tuple[int, ...], dtype) -> nnx.Param:
  """A weight, to be filled from a checkpoint."""
  return nnx.Param(jnp.zeros(shape, dtype))


def param_if(present: bool, shape: tuple[int, ...], dtype) -> nnx.Param | None:
  return param(shape, dtype) if present else None


def add_bias(x: jax.Array, bias: nnx.Param | None) -> jax.Array:
  if bias is None:
    return x
  value = bias[...].astype(x.dtype)
  return x + value.reshape((1,) * (x.ndim - value.ndim) + value.shape)


class Norm(nnx.Module):
  """RMS norm (of gemma: times 1 + weight) or layer norm, over the last axis."""

  def __init__(self, config: config_lib.ModelConfig, width: int, dtype):
    self.kind = config.norm
    self.eps = config.norm_eps
    self.scale = param((width,), dtype)
    self.bias = param_if(config.norm == "layer", (width,), dtype)

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
    return add_bias(y, self.bias).astype(x.dtype)


class Attention(nnx.Module):
  """Grouped-query attention with rotary positions and an optional window."""

  def __init__(self, config: config_lib.ModelConfig, dtype):
    self.config = c = config
    d, n, k, h = c.d_model, c.num_heads, c.num_kv_heads, c.head_dim
    self.w_q_NHD = param((n, h, d), dtype)
    self.w_k_KHD = param((k, h, d), dtype)
    self.w_v_KHD = param((k, h, d), dtype)
    self.w_o_DNH = param((d, n, h), dtype)
    self.b_q_NH = param_if(c.qkv_bias, (n, h), dtype)
    self.b_k_KH = param_if(c.qkv_bias, (k, h), dtype)
    self.b_v_KH = param_if(c.qkv_bias, (k, h), dtype)
    self.b_o_D = param_if(c.out_bias, (d,), dtype)
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
    q = add_bias(einsum("btd,nhd->btnh", x_BTD, self.w_q_NHD[...]), self.b_q_NH)
    k = add_bias(einsum("btd,khd->btkh", x_BTD, self.w_k_KHD[...]), self.b_k_KH)
    v = add_bias(einsum("btd,khd->btkh", x_BTD, self.w_v_KHD[...]), self.b_v_KH)
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
    out = einsum("btnh,dnh->btd", mixed_BTNH, self.w_o_DNH[...])
    return add_bias(out, self.b_o_D).astype(dtype), cache


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
    seen_BTS = (behind_TS >= 0)[None] & at.mask_BS[:, None, :]
    seen_BTS &= _same_text(at.branch_BS, slot_T)
    if c.window:
      seen_BTS &= (_distance(at, behind_TS, slot_T) < c.window) | ~slides
    s_BKGTS = einsum("btkgh,bskh->bkgts", q_BTKGH, k_BSKH)
    s_BKGTS = softcap(s_BKGTS * c.attention_scale, c.attention_softcap)
    # Not -inf: a padding query sees nothing, and its softmax must not be NaN.
    s_BKGTS = jnp.where(seen_BTS[:, None, None], s_BKGTS, -1e30)
    p_BKGTS = jax.nn.softmax(s_BKGTS, axis=-1).astype(v_BSKH.dtype)
    return einsum("bkgts,bskh->btkgh", p_BKGTS, v_BSKH).astype(v_BSKH.dtype)

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


def _same_text(branch_BS: jax.Array | None, slot_T: jax.Array) -> jax.Array:
  """Whether a key's slot is in branch 0 or the query's, bool [B or 1, T, S]."""
  if branch_BS is None:
    return jnp.ones((1, 1, 1), bool)
  own_BT1 = branch_BS[:, slot_T][..., None]
  branch_B1S = branch_BS[:, None, :]
  return (branch_B1S == 0) | (branch_B1S == own_BT1)


def _distance(at: Positions, behind_TS: jax.Array, slot_T: jax.Array):
  """How many tokens a key is behind a query, [B or 1, T, S]."""
  if at.position_BS is None:
    return behind_TS[None]
  own_BT1 = at.position_BS[:, slot_T][..., None]
  return own_BT1 - at.position_BS[:, None, :]


def softcap(x: jax.Array, cap: float) -> jax.Array:
  return cap * jnp.tanh(x / cap) if cap else x


def positions(
  config: config_lib.ModelConfig,
  mask_BS: jax.Array,
  start: jax.Array | int,
  count: int,
  branch_BS: jax.Array | None = None,
) -> tuple[Positions, jax.Array]:
  """Where `count` new tokens from slot `start` stand.

  A token's position is the number of tokens before it in its sequence, so
  padding on either side does not count, nor do other branches.

  Returns:
    the attention's view, and position_BT int32.
  """
  upto_BS = jnp.cumsum(mask_BS, axis=1, dtype=jnp.int32)
  if branch_BS is not None:
    slot_S = jnp.arange(mask_BS.shape[1])
    seen_BSS = _same_text(branch_BS, slot_S) & mask_BS[:, None, :]
    seen_BSS &= (slot_S[:, None] >= slot_S[None, :])[None]
    upto_BS = jnp.sum(seen_BSS, axis=-1, dtype=jnp.int32)
  position_BS = jnp.maximum(upto_BS - 1, 0)
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
    branch_BS,
    None if branch_BS is None else position_BS,
  )
  return at, position_BT
