# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""GGUF files of the llama family, seen as a Hugging Face checkpoint.

Reads one memory-mapped `.gguf`: `read_gguf_config` gives what `config.json`
would hold, `GgufTensors` the weights under their Hugging Face names and in
Hugging Face row order. Whatever the decoder could not reproduce is refused.
"""

import functools
import math
import os
import pathlib
import re
import struct
from typing import Any

import gguf
import ml_dtypes
import numpy as np

from sae_jax import errors

_TOP_NAMES = {
  "token_embd": "model.embed_tokens",
  "output_norm": "model.norm",
  "output": "lm_head",
}
_BLOCK_NAMES = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
}
_ROPE_FACTORS = "rope_freqs.weight"

# Keys under `llama.` that the config is made from or that change nothing in
# the computation. Any other key may change it, so the file is refused.
_KNOWN_KEYS = frozenset(
  {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "expert_count",
    "expert_used_count",
    "vocab_size",
    "tensor_data_layout",
  }
)


def open_reader(path: str | os.PathLike[str]) -> gguf.GGUFReader:
  """Opens a `.gguf`, memory-mapped; the last one opened is kept.

  Raises:
    errors.InputError: no such file, not a GGUF, cut short, or split in parts.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise errors.InputError(
      f"{file}: no such file; give the path of a .gguf file."
    )
  stat = file.stat()
  return _open_reader(str(file.resolve()), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _open_reader(path: str, size: int, mtime_ns: int) -> gguf.GGUFReader:
  # Parsing 50,000 tokens and merges takes about a second, and the config, the
  # weights and the tokenizer each want the metadata. Size and time are in the
  # key so that a file that was replaced is read again.
  del mtime_ns
  with open(path, "rb") as f:
    magic = f.read(4)
  if magic != struct.pack("<I", gguf.GGUF_MAGIC):
    raise errors.InputError(
      f"{path}: not a GGUF file (it starts with {magic!r}, not b'GGUF');"
      " give a .gguf file or a Hugging Face model directory."
    )
  try:
    reader = gguf.GGUFReader(path)
  # What the reader's array indexing raises when the bytes run out or a length
  # or type code in the header is damaged.
  except (ValueError, IndexError, KeyError, OverflowError) as error:
    raise errors.InputError(
      f"{path}: the GGUF file is cut short or damaged ({size} bytes; {error});"
      " download it again."
    ) from error
  parts = get(reader, "split.count", 1)
  if parts > 1:
    raise errors.InputError(
      f"{path}: one of {parts} parts of a split GGUF; join them with"
      " `llama-gguf-split --merge` first."
    )
  return reader


def get(reader: gguf.GGUFReader, key: str, default: Any = None) -> Any:
  """The value of a metadata key as Python data, or `default`."""
  field = reader.get_field(key)
  return default if field is None else field.contents()


def read_gguf_config(path: str | os.PathLike[str]) -> dict[str, Any]:
  """The model's configuration, shaped like `config.json` of `LlamaConfig`.

  Rope scaling appears as `rope_scaling` with `rope_type` "llama3" or "linear",
  and is absent where there is none.

  Raises:
    errors.InputError: the file asks for something other than a dense llama.
  """
  reader = open_reader(path)
  _check_supported(path, reader)
  tensors = {t.name: t for t in reader.tensors}

  def number(key: str, default: Any = None) -> Any:
    value = get(reader, f"llama.{key}", default)
    if value is None:
      raise errors.InputError(
        f"{path}: no llama.{key} in the metadata; convert the model again with"
        " a current llama.cpp."
      )
    if isinstance(value, list):
      if len(set(value)) != 1:
        raise errors.InputError(
          f"{path}: llama.{key} differs from layer to layer ({value}), which"
          " is not implemented; use a model with uniform layers."
        )
      value = value[0]
    return value

  hidden, heads = number("embedding_length"), number("attention.head_count")
  head_dim = number("attention.key_length", hidden // heads)
  for key in ("attention.value_length", "rope.dimension_count"):
    if number(key, head_dim) != head_dim:
      raise errors.InputError(
        f"{path}: llama.{key} is {number(key)} but the heads are {head_dim}"
        " wide; heads of two widths or partly rotated are not implemented."
      )
  config = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": hidden,
    "num_hidden_layers": number("block_count"),
    "num_attention_heads": heads,
    "num_key_value_heads": number("attention.head_count_kv", heads),
    "head_dim": head_dim,
    "intermediate_size": number("feed_forward_length"),
    "max_position_embeddings": number("context_length"),
    "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
    "rope_theta": number("rope.freq_base", 10000.0),
    "vocab_size": int(tensors["token_embd.weight"].shape[1]),
    "tie_word_embeddings": "output.weight" not in tensors,
    "attention_bias": "blk.0.attn_q.bias" in tensors,
    "mlp_bias": "blk.0.ffn_gate.bias" in tensors,
    "bos_token_id": get(reader, "tokenizer.ggml.bos_token_id"),
    "eos_token_id": get(reader, "tokenizer.ggml.eos_token_id"),
  }
  scaling = _rope_scaling(path, reader, config)
  return config if scaling is None else config | {"rope_scaling": scaling}


def _check_supported(
  path: str | os.PathLike[str], reader: gguf.GGUFReader
) -> None:
  architecture = get(reader, "general.architecture")
  if architecture != "llama":
    raise errors.InputError(
      f"{path}: general.architecture is {architecture!r}; only 'llama' is read"
      " from GGUF. Use the Hugging Face directory of this model instead."
    )
  unknown = sorted(
    key
    for key in reader.fields
    if key.startswith("llama.") and key[len("llama.") :] not in _KNOWN_KEYS
  )
  if unknown:
    raise errors.InputError(
      f"{path}: {', '.join(unknown)} is not implemented; use the Hugging Face"
      " directory of this model instead."
    )
  experts = get(reader, "llama.expert_count", 0)
  if experts:
    raise errors.InputError(
      f"{path}: llama.expert_count is {experts}; mixtures of experts are not"
      " implemented."
    )
  names = {t.name for t in reader.tensors}
  strange = sorted(n for n in names if not _hf_name(n) and n != _ROPE_FACTORS)
  if strange:
    raise errors.InputError(
      f"{path}: tensors {', '.join(strange[:4])} do not belong to a dense"
      " llama; use the Hugging Face directory of this model instead."
    )
  if "token_embd.weight" not in names:
    raise errors.InputError(
      f"{path}: no token_embd.weight; this GGUF holds no model (a vocabulary"
      " or adapter file?)."
    )


def _rope_scaling(
  path: str | os.PathLike[str],
  reader: gguf.GGUFReader,
  config: dict[str, Any],
) -> dict[str, Any] | None:
  kind = get(reader, "llama.rope.scaling.type", "none")
  factor = get(reader, "llama.rope.scaling.factor", 1.0)
  stored = [t for t in reader.tensors if t.name == _ROPE_FACTORS]
  if kind not in ("none", "linear") or (kind == "linear" and stored):
    raise errors.InputError(
      f"{path}: llama.rope.scaling.type {kind!r} is not implemented"
      " (there are 'linear' and llama-3.1's)."
    )
  if kind == "linear" and factor != 1.0:
    return {"rope_type": "linear", "factor": factor}
  if not stored:
    return None
  factors = np.asarray(stored[0].data, np.float64)
  if np.all(factors == 1.0):
    return None
  # llama.cpp keeps only the per-frequency divisors; Hugging Face's config
  # keeps the rule. Every llama 3.1 to 3.3 has the bands 1 and 4 and 8192
  # positions, so rebuild the divisors from those and accept if they are equal.
  scaling = {
    "rope_type": "llama3",
    "factor": float(factors.max()),
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
  }
  rebuilt = _llama3_factors(config["rope_theta"], config["head_dim"], scaling)
  # The converter works in float32: theta**x is off by ln(theta) x 6e-8 = 8e-7,
  # which the lower band edge multiplies by (factor - 1) / 3 <= 10.
  if rebuilt.shape != factors.shape or not np.allclose(
    rebuilt, factors, rtol=1e-5, atol=0.0
  ):
    raise errors.InputError(
      f"{path}: {_ROPE_FACTORS} is not llama-3.1's rule (bands 1 and 4, 8192"
      " positions); use the Hugging Face directory of this model instead."
    )
  return scaling


def _llama3_factors(
  theta: float, head_dim: int, scaling: dict[str, Any]
) -> np.ndarray:
  """Divisors of the rotary frequencies of Llama 3.1, [head_dim / 2] float64."""
  frequency = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
  low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
  turns = scaling["original_max_position_embeddings"] * frequency / math.tau
  smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
  return 1.0 / ((1.0 - smooth) / scaling["factor"] + smooth)


def _hf_name(name: str) -> str | None:
  match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
  if match is None:
    return None
  layer, part, kind = match.groups()
  if layer is None:
    base = _TOP_NAMES.get(part)
    return None if base is None else f"{base}.{kind}"
  base = _BLOCK_NAMES.get(part)
  return None if base is None else f"model.layers.{layer}.{base}.{kind}"


class GgufTensors:
  """The tensors of a `.gguf` under Hugging Face names, read slice by slice.

  llama.cpp stores the rows of q and k with the two halves of each rotary pair
  side by side; `read` puts them back into Hugging Face's half-and-half order.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Opens the file; see `read_gguf_config` for what is refused."""
    self._path = path
    config = read_gguf_config(path)
    self._heads = {
      "q_proj": config["num_attention_heads"],
      "k_proj": config["num_key_value_heads"],
    }
    tensors = open_reader(path).tensors
    self._tensors = {
      hf: t for t in tensors if (hf := _hf_name(t.name)) is not None
    }

  def names(self) -> set[str]:
    """Hugging Face names of the tensors that are there."""
    return set(self._tensors)

  def shape(self, name: str) -> tuple[int, ...]:
    """Shape in Hugging Face's order, [out, in] for a matrix."""
    # GGUF lists the fastest axis first.
    return tuple(int(n) for n in reversed(self._tensors[name].shape))

  def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
    """A slice of one tensor: f32, f16 or bf16 as stored, else de-quantised f32.

    Only the rows asked for are read and de-quantised; nothing is cached.

    Args:
      name: a Hugging Face name out of `names()`.
      index: one slice per axis from the first on; missing ones mean all.

    Raises:
      errors.InputError: the tensor's quantisation is not implemented.
    """
    tensor = self._tensors[name]
    rows = np.arange(self.shape(name)[0])
    projection = name.split(".")[-2]
    if projection in self._heads:
      # row (head, half, i) of Hugging Face is (head, i, half) of llama.cpp
      heads = self._heads[projection]
      rows = rows.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
    row_index = index[0] if index else slice(None)
    wanted = rows[row_index]
    stored = tensor.data[wanted if projection in self._heads else row_index]
    return self._decode(tensor, stored)[(slice(None), *index[1:])]

  def _decode(self, tensor: Any, stored: np.ndarray) -> np.ndarray:
    kinds = gguf.GGMLQuantizationType
    if tensor.tensor_type in (kinds.F32, kinds.F16):
      return np.asarray(stored)
    if tensor.tensor_type == kinds.BF16:
      return np.ascontiguousarray(stored).view(ml_dtypes.bfloat16)
    try:
      return gguf.dequantize(stored, tensor.tensor_type)
    except NotImplementedError as error:
      raise errors.InputError(
        f"{self._path}: {tensor.name} is quantised as"
        f" {tensor.tensor_type.name}, which the gguf package cannot read;"
        " use another quantisation (Q4_K_M, Q8_0, F16 …)."
      ) from error
