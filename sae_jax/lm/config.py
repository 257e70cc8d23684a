# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads a Hugging Face `config.json` into one `ModelConfig`.

Both the transformers 4.x and 5.x spellings are read. Whatever a config asks
for that the decoder does not do is refused by name, never ignored.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sae_jax import errors
from sae_jax.lm import hf_defaults


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """What one decoder is: sizes, switches and per-layer attention.

  Every family is the same block with these switches. Widths are in elements,
  `window` in tokens (the query's own position included).
  """

  family: str  # the config's model_type
  vocab_size: int
  d_model: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_width: int
  norm: str = "rms"  # "rms", "rms_plus_one" (gemma: 1 + weight) or "layer"
  norm_eps: float = 1e-6
  activation: str = "silu"  # "silu", "relu", "gelu" or "gelu_tanh"
  gated_mlp: bool = True
  parallel_residual: bool = False  # gpt_neox: attention and MLP read one input
  post_norms: bool = False  # gemma: norms after attention and MLP as well
  qk_norm: bool = False
  qkv_bias: bool = False
  out_bias: bool = False
  mlp_bias: bool = False
  tied_embedding: bool = False
  embed_scale: float = 1.0
  learned_positions: int = 0  # gpt2: rows of the position table
  rotary_dims: int = 0  # how many of a head's dims are rotated, from the first
  rope_frequencies: tuple[float, ...] = ()  # radians per position
  rope_frequencies_local: tuple[float, ...] = ()  # those of sliding layers
  window: int = 0
  sliding_layers: tuple[bool, ...] = ()  # which layers see `window` tokens
  attention_scale: float = 1.0
  attention_softcap: float = 0.0  # 0: none
  logit_softcap: float = 0.0
  eos_ids: tuple[int, ...] = ()


def from_hf(raw: Mapping[str, Any], *, place: str) -> ModelConfig:
  """Translates the contents of a `config.json`.

  Args:
    raw: the parsed file; of a multimodal gemma3 only its `text_config` is used.
    place: the file's path, for messages.

  Raises:
    errors.InputError: the config is of an unknown family, lacks a field, or
      asks for something the decoder does not do.
  """
  family = raw.get("model_type")
  if family == "gemma3" and isinstance(raw.get("text_config"), Mapping):
    outer, raw, family = raw, raw["text_config"], "gemma3_text"
    inherited = ("quantization_config", "eos_token_id")
    raw = {**{k: outer[k] for k in inherited if k in outer}, **raw}
  if family not in hf_defaults.DEFAULTS:
    known = ", ".join(sorted(hf_defaults.DEFAULTS))
    raise errors.InputError(
      f"{place}: model_type={family!r} is not supported; supported are {known},"
      " and gemma3 with a text_config"
    )
  hf = _Fields({**hf_defaults.DEFAULTS[family], **raw}, place)
  for name in hf_defaults.REFUSED:
    if hf.get(name):
      hf.refuse(name)
  if family == "gpt2":
    return _gpt2(hf)
  return _rotary_family(family, hf)


class _Fields:
  """A config's fields with its family's defaults, and its path."""

  def __init__(self, fields: Mapping[str, Any], place: str):
    self.fields = fields
    self.place = place

  def get(self, name: str, default: Any = None) -> Any:
    """The field; absent and null both give `default`."""
    value = self.fields.get(name)
    return default if value is None else value

  def need(self, name: str) -> Any:
    value = self.fields.get(name)
    if value is None:
      raise errors.InputError(
        f"{self.place}: the field {name!r} is missing; give the config.json of"
        " a causal language model as transformers writes it"
      )
    return value

  def refuse(self, name: str, supported: str = ""):
    raise errors.InputError(
      f"{self.place}: {name}={self.fields.get(name)!r} is not supported; "
      + (f"supported are {supported}" if supported else "it must be unset")
    )

  def activation(self, name: str) -> str:
    if self.get(name) not in hf_defaults.ACTIVATIONS:
      self.refuse(name, ", ".join(sorted(hf_defaults.ACTIVATIONS)))
    return hf_defaults.ACTIVATIONS[self.get(name)]

  def eos_ids(self) -> tuple[int, ...]:
    value = self.get("eos_token_id", ())
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _gpt2(hf: _Fields) -> ModelConfig:
  d_model, heads = hf.need("n_embd"), hf.need("n_head")
  if d_model % heads:
    hf.refuse("n_head", f"divisors of n_embd={d_model}")
  head_dim = d_model // heads
  return ModelConfig(
    family="gpt2",
    vocab_size=hf.need("vocab_size"),
    d_model=d_model,
    num_layers=hf.need("n_layer"),
    num_heads=heads,
    num_kv_heads=heads,
    head_dim=head_dim,
    mlp_width=hf.get("n_inner", 4 * d_model),
    norm="layer",
    norm_eps=hf.need("layer_norm_epsilon"),
    activation=hf.activation("activation_function"),
    gated_mlp=False,
    qkv_bias=True,
    out_bias=True,
    mlp_bias=True,
    tied_embedding=bool(hf.get("tie_word_embeddings")),
    learned_positions=hf.need("n_positions"),
    sliding_layers=(False,) * hf.need("n_layer"),
    attention_scale=head_dim**-0.5 if hf.get("scale_attn_weights") else 1.0,
    eos_ids=hf.eos_ids(),
  )


def _rotary_family(family: str, hf: _Fields) -> ModelConfig:
  d_model, heads = hf.need("hidden_size"), hf.need("num_attention_heads")
  kv_heads = hf.get("num_key_value_heads", heads)
  if heads % kv_heads:
    hf.refuse("num_key_value_heads", f"divisors of {heads} attention heads")
  head_dim = hf.get("head_dim", d_model // heads)
  gemma, neox = family.startswith("gemma"), family == "gpt_neox"
  biased = bool(hf.get("attention_bias"))
  if family in ("mistral", "qwen2") and biased:
    hf.refuse("attention_bias")  # transformers does not read it there either
  if family != "llama" and hf.get("mlp_bias"):
    hf.refuse("mlp_bias")
  scale = hf.get("query_pre_attn_scalar") if gemma else head_dim
  return ModelConfig(
    family=family,
    vocab_size=hf.need("vocab_size"),
    d_model=d_model,
    num_layers=hf.need("num_hidden_layers"),
    num_heads=heads,
    num_kv_heads=kv_heads,
    head_dim=head_dim,
    mlp_width=hf.need("intermediate_size"),
    norm="rms_plus_one" if gemma else "layer" if neox else "rms",
    norm_eps=hf.need("layer_norm_eps" if neox else "rms_norm_eps"),
    activation=hf.activation("hidden_activation" if gemma else "hidden_act"),
    gated_mlp=not neox,
    parallel_residual=neox and bool(hf.get("use_parallel_residual")),
    post_norms=gemma,
    qk_norm=family in ("qwen3", "gemma3_text"),
    qkv_bias=biased or family == "qwen2",
    out_bias=biased,
    mlp_bias=neox or bool(hf.get("mlp_bias")),
    tied_embedding=bool(hf.get("tie_word_embeddings")),
    embed_scale=d_model**0.5 if gemma else 1.0,
    attention_scale=scale**-0.5,
    attention_softcap=hf.get("attn_logit_softcapping", 0.0),
    logit_softcap=hf.get("final_logit_softcapping", 0.0),
    eos_ids=hf.eos_ids(),
    **_rope(hf, head_dim),
    **_windows(family, hf),
  )


def _rope(hf: _Fields, head_dim: int) -> dict[str, Any]:
  """The fields `rotary_dims`, `rope_frequencies` and `…_local`.

  transformers 5.x keeps everything in `rope_parameters` (one dict, or one per
  layer type); 4.x spells `rope_theta`, `rope_scaling`, `rope_local_base_freq`.
  """
  theta = hf.get("rope_theta", hf.get("rotary_emb_base"))
  local_theta = hf.get("rope_local_base_freq")
  given = hf.get("rope_parameters", {})
  if "full_attention" in given or "sliding_attention" in given:
    full = given.get("full_attention") or {}
    local = given.get("sliding_attention") or {}
  else:
    full = given or hf.get("rope_scaling", {})
    local = full if local_theta is None else {}
  full = {"rope_theta": theta, **full}
  local = {"rope_theta": local_theta or theta, **local}
  dims = int(head_dim * full.get("partial_rotary_factor", hf.get("rotary_pct")))
  return dict(
    rotary_dims=dims,
    rope_frequencies=_frequencies(full, dims, hf.place),
    rope_frequencies_local=_frequencies(local, dims, hf.place),
  )


def _frequencies(
  rope: Mapping[str, Any], dims: int, place: str
) -> tuple[float, ...]:
  """Radians per position of every rotated pair, `dims // 2` of them.

  llama3 is Llama 3.1's scaling: wavelengths beyond the original context are
  stretched by `factor`, those well inside it are kept, and between the two
  bounds the frequency is interpolated linearly in turns per context.
  """
  kind = rope.get("rope_type", rope.get("type", "default"))
  exponent = np.arange(0, dims, 2, dtype=np.float64) / dims
  frequency = 1.0 / np.power(float(rope["rope_theta"]), exponent)
  if kind == "linear":
    frequency = frequency / rope["factor"]
  elif kind == "llama3":
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    old_context = rope["original_max_position_embeddings"]
    turns = old_context * frequency / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    frequency = frequency * (kept + (1.0 - kept) / rope["factor"])
  elif kind != "default":
    raise errors.InputError(
      f"{place}: rope type {kind!r} is not supported; supported are default,"
      " linear and llama3"
    )
  return tuple(frequency.tolist())


def _windows(family: str, hf: _Fields) -> dict[str, Any]:
  """The fields `window` and `sliding_layers`."""
  n = hf.need("num_hidden_layers")
  window = hf.get("sliding_window", 0)
  if family.startswith("qwen") and not hf.get("use_sliding_window"):
    window = 0
  if family == "mistral":
    slides = [bool(window)] * n
  elif family.startswith("qwen"):
    slides = [
      bool(window) and i >= hf.need("max_window_layers") for i in range(n)
    ]
  elif family.startswith("gemma"):
    pattern = hf.need("sliding_window_pattern")
    slides = [(i + 1) % pattern != 0 for i in range(n)]
  else:
    slides = [False] * n
  kinds = hf.get("layer_types")
  if kinds is not None:
    if set(kinds) - {"full_attention", "sliding_attention"} or len(kinds) != n:
      hf.refuse(
        "layer_types", f"full_attention and sliding_attention for {n} layers"
      )
    slides = [kind == "sliding_attention" for kind in kinds]
  if any(slides) and window < 1:
    hf.refuse("sliding_window", "window sizes of at least 1 token")
  return dict(window=window if any(slides) else 0, sliding_layers=tuple(slides))
