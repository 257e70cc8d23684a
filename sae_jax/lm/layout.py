# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which stored tensor, read in which way, makes which weight of the decoder.

One table per naming scheme. A reader returns the slice `index` of one layer's
weight of shape `shape`, and reads no more of the file than that slice.
"""

from collections.abc import Callable, Sequence

import numpy as np

from sae_jax.lm import config as config_lib
from sae_jax.lm import source as source_lib

_Reader = Callable[
  [source_lib.Source, str, tuple[int, ...], source_lib.Index], np.ndarray
]


def _span(s: slice, size: int) -> tuple[int, int]:
  start, stop, _ = s.indices(size)
  return start, stop


def _plain(source, name, shape, index):
  return source.read(name, index)


def _transposed(source, name, shape, index):
  return source.read(name, index[::-1]).T


def _rows_by_head(source, name, shape, index):
  """[N, H, …] of a tensor stored as [N * H, …]; heads are sliced, not dims."""
  start, stop = _span(index[0], shape[0])
  width = shape[1]
  rows = source.read(name, (slice(start * width, stop * width), *index[2:]))
  return rows.reshape(stop - start, width, *rows.shape[1:])


def _columns_by_head(source, name, shape, index):
  """[D, N, H] of a tensor stored as [D, N * H]."""
  start, stop = _span(index[1], shape[1])
  width = shape[2]
  rows = source.read(name, (index[0], slice(start * width, stop * width)))
  return rows.reshape(rows.shape[0], stop - start, width)


def _gpt2_part(part: int) -> _Reader:
  """q, k or v of gpt2's `c_attn`, stored as [D, 3 * N * H], [3 * N * H]."""

  def read(source, name, shape, index):
    start, stop = _span(index[0], shape[0])
    width = shape[1]
    first = part * shape[0]
    columns = slice((first + start) * width, (first + stop) * width)
    rows = source.read(name, (*index[2:], columns)).T
    return rows.reshape(stop - start, width, *rows.shape[1:])

  return read


def _neox_part(part: int) -> _Reader:
  """q, k or v of gpt_neox's fused rows, stored as [N * 3 * H, …]."""

  def read(source, name, shape, index):
    start, stop = _span(index[0], shape[0])
    width = 3 * shape[1]
    rows = source.read(name, (slice(start * width, stop * width), *index[2:]))
    fused = rows.reshape(stop - start, 3, shape[1], *rows.shape[1:])
    return fused[:, part]

  return read


def _gpt2_out(source, name, shape, index):
  """[D, N, H] of gpt2's `c_proj`, stored as [N * H, D]."""
  start, stop = _span(index[1], shape[1])
  width = shape[2]
  rows = source.read(name, (slice(start * width, stop * width), index[0]))
  return rows.T.reshape(rows.shape[1], stop - start, width)


_Layout = dict[str, tuple[str, _Reader]]


def _llama_layout(c: config_lib.ModelConfig) -> _Layout:
  mlp_norm = (
    "pre_feedforward_layernorm" if c.post_norms else "post_attention_layernorm"
  )
  block: _Layout = {
    "attention.w_q_NHD": ("self_attn.q_proj.weight", _rows_by_head),
    "attention.w_k_KHD": ("self_attn.k_proj.weight", _rows_by_head),
    "attention.w_v_KHD": ("self_attn.v_proj.weight", _rows_by_head),
    "attention.b_q_NH": ("self_attn.q_proj.bias", _rows_by_head),
    "attention.b_k_KH": ("self_attn.k_proj.bias", _rows_by_head),
    "attention.b_v_KH": ("self_attn.v_proj.bias", _rows_by_head),
    "attention.w_o_DNH": ("self_attn.o_proj.weight", _columns_by_head),
    "attention.b_o_D": ("self_attn.o_proj.bias", _plain),
    "attention.q_norm.scale": ("self_attn.q_norm.weight", _plain),
    "attention.k_norm.scale": ("self_attn.k_norm.weight", _plain),
    "mlp.w_gate_FD": ("mlp.gate_proj.weight", _plain),
    "mlp.w_up_FD": ("mlp.up_proj.weight", _plain),
    "mlp.w_down_DF": ("mlp.down_proj.weight", _plain),
    "mlp.b_gate_F": ("mlp.gate_proj.bias", _plain),
    "mlp.b_up_F": ("mlp.up_proj.bias", _plain),
    "mlp.b_down_D": ("mlp.down_proj.bias", _plain),
    "attention_norm.scale": ("input_layernorm.weight", _plain),
    "attention_post_norm.scale": ("post_attention_layernorm.weight", _plain),
    "mlp_norm.scale": (f"{mlp_norm}.weight", _plain),
    "mlp_post_norm.scale": ("post_feedforward_layernorm.weight", _plain),
  }
  return {
    "embed_VD": ("model.embed_tokens.weight", _plain),
    "final_norm.scale": ("model.norm.weight", _plain),
    "head_VD": ("lm_head.weight", _plain),
    **{
      f"blocks.{ours}": (f"model.layers.{{}}.{theirs}", reader)
      for ours, (theirs, reader) in block.items()
    },
  }


def _gpt2_layout(c: config_lib.ModelConfig) -> _Layout:
  block: _Layout = {
    "attention.w_o_DNH": ("attn.c_proj.weight", _gpt2_out),
    "attention.b_o_D": ("attn.c_proj.bias", _plain),
    "mlp.w_up_FD": ("mlp.c_fc.weight", _transposed),
    "mlp.b_up_F": ("mlp.c_fc.bias", _plain),
    "mlp.w_down_DF": ("mlp.c_proj.weight", _transposed),
    "mlp.b_down_D": ("mlp.c_proj.bias", _plain),
    "attention_norm.scale": ("ln_1.weight", _plain),
    "attention_norm.bias": ("ln_1.bias", _plain),
    "mlp_norm.scale": ("ln_2.weight", _plain),
    "mlp_norm.bias": ("ln_2.bias", _plain),
  }
  for part, (w, b) in enumerate(_QKV):
    block[f"attention.{w}"] = ("attn.c_attn.weight", _gpt2_part(part))
    block[f"attention.{b}"] = ("attn.c_attn.bias", _gpt2_part(part))
  return {
    "embed_VD": ("transformer.wte.weight", _plain),
    "position_PD": ("transformer.wpe.weight", _plain),
    "final_norm.scale": ("transformer.ln_f.weight", _plain),
    "final_norm.bias": ("transformer.ln_f.bias", _plain),
    "head_VD": ("lm_head.weight", _plain),
    **{
      f"blocks.{ours}": (f"transformer.h.{{}}.{theirs}", reader)
      for ours, (theirs, reader) in block.items()
    },
  }


def _neox_layout(c: config_lib.ModelConfig) -> _Layout:
  block: _Layout = {
    "attention.w_o_DNH": ("attention.dense.weight", _columns_by_head),
    "attention.b_o_D": ("attention.dense.bias", _plain),
    "mlp.w_up_FD": ("mlp.dense_h_to_4h.weight", _plain),
    "mlp.b_up_F": ("mlp.dense_h_to_4h.bias", _plain),
    "mlp.w_down_DF": ("mlp.dense_4h_to_h.weight", _plain),
    "mlp.b_down_D": ("mlp.dense_4h_to_h.bias", _plain),
    "attention_norm.scale": ("input_layernorm.weight", _plain),
    "attention_norm.bias": ("input_layernorm.bias", _plain),
    "mlp_norm.scale": ("post_attention_layernorm.weight", _plain),
    "mlp_norm.bias": ("post_attention_layernorm.bias", _plain),
  }
  for part, (w, b) in enumerate(_QKV):
    fused = "attention.query_key_value"
    block[f"attention.{w}"] = (f"{fused}.weight", _neox_part(part))
    block[f"attention.{b}"] = (f"{fused}.bias", _neox_part(part))
  return {
    "embed_VD": ("gpt_neox.embed_in.weight", _plain),
    "final_norm.scale": ("gpt_neox.final_layer_norm.weight", _plain),
    "final_norm.bias": ("gpt_neox.final_layer_norm.bias", _plain),
    "head_VD": ("embed_out.weight", _plain),
    **{
      f"blocks.{ours}": (f"gpt_neox.layers.{{}}.{theirs}", reader)
      for ours, (theirs, reader) in block.items()
    },
  }


_QKV = (("w_q_NHD", "b_q_NH"), ("w_k_KHD", "b_k_KH"), ("w_v_KHD", "b_v_KH"))


def layout(config: config_lib.ModelConfig) -> _Layout:
  """Weight path -> (Hugging Face name, `{}` for the layer; its reader)."""
  if config.family == "gpt2":
    return _gpt2_layout(config)
  if config.family == "gpt_neox":
    return _neox_layout(config)
  return _llama_layout(config)


def to_stored(reader: _Reader, parts: Sequence[np.ndarray]) -> np.ndarray:
  """One layer's weights as they are stored: the inverse of `reader`.

  Args:
    parts: the weight; of a fused tensor q, k and v in this order.
  """
  if is_fused(reader):
    if reader.__qualname__.startswith(_gpt2_part.__name__):
      rows = [part.reshape(-1, *part.shape[2:]).T for part in parts]
      return np.concatenate(rows, axis=-1)
    fused = np.stack(parts, axis=1)  # [N, 3, H, …]
    return fused.reshape(-1, *fused.shape[3:])
  (weight,) = parts
  if reader is _transposed:
    return weight.T
  if reader is _rows_by_head:
    return weight.reshape(-1, *weight.shape[2:])
  if reader is _columns_by_head:
    return weight.reshape(weight.shape[0], -1)
  if reader is _gpt2_out:
    return weight.reshape(weight.shape[0], -1).T
  return weight


def is_fused(reader: _Reader) -> bool:
  """Whether the stored tensor holds q, k and v together."""
  return reader.__qualname__.startswith(
    (_gpt2_part.__name__, _neox_part.__name__)
  )
