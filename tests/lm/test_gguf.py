# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A GGUF file reads as the Hugging Face checkpoint it was made from."""

import gguf as gguf_lib
import ml_dtypes
import numpy as np
import pytest

from sae_jax import errors
from sae_jax.lm import gguf

LAYERS, HIDDEN, HEADS, KV_HEADS, FFN, VOCAB = 2, 64, 4, 2, 96, 40
HEAD_DIM = HIDDEN // HEADS
TYPES = gguf_lib.GGMLQuantizationType


def hf_weights(bias=False):
  """Random weights of a tiny llama under Hugging Face names."""
  rng = np.random.default_rng(0)
  shapes = {
    "model.embed_tokens.weight": (VOCAB, HIDDEN),
    "model.norm.weight": (HIDDEN,),
  }
  for layer in range(LAYERS):
    block = {
      "input_layernorm.weight": (HIDDEN,),
      "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
      "self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
      "self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
      "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
      "post_attention_layernorm.weight": (HIDDEN,),
      "mlp.gate_proj.weight": (FFN, HIDDEN),
      "mlp.up_proj.weight": (FFN, HIDDEN),
      "mlp.down_proj.weight": (HIDDEN, FFN),
    }
    if bias:
      block["self_attn.q_proj.bias"] = (HIDDEN,)
    shapes |= {f"model.layers.{layer}.{k}": v for k, v in block.items()}
  return {
    name: rng.standard_normal(shape).astype(np.float32)
    for name, shape in shapes.items()
  }


GGUF_NAMES = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  "lm_head": "output",
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "post_attention_layernorm": "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
  base, kind = name.rsplit(".", 1)
  if base.startswith("model.layers."):
    layer, part = base.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{kind}"
  return f"{GGUF_NAMES[base]}.{kind}"


def permute(weight, heads):
  """What llama.cpp's converter does to the rows of q and k."""
  halves = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
  return halves.swapaxes(1, 2).reshape(weight.shape)


def write(path, weights, kind=TYPES.F32, architecture="llama", **extra):
  """Writes a GGUF; `extra` sets or (None) leaves out `llama.` keys."""
  writer = gguf_lib.GGUFWriter(path, architecture)
  keys = {
    "block_count": LAYERS,
    "context_length": 128,
    "embedding_length": HIDDEN,
    "feed_forward_length": FFN,
    "attention__head_count": HEADS,
    "attention__head_count_kv": KV_HEADS,
    "rope__dimension_count": HEAD_DIM,
    "attention__layer_norm_rms_epsilon": 1e-5,
    "rope__freq_base": 5e5,
  } | extra
  for key, value in keys.items():
    name = "llama." + key.replace("__", ".")
    if isinstance(value, list):
      writer.add_array(name, value)
    elif isinstance(value, str):
      writer.add_string(name, value)
    elif isinstance(value, float):
      writer.add_float32(name, value)
    elif value is not None:
      writer.add_uint32(name, value)
  for name, weight in weights.items():
    stored = weight
    if "q_proj" in name or "k_proj" in name:
      stored = permute(weight, HEADS if "q_proj" in name else KV_HEADS)
    own = kind if weight.ndim == 2 else TYPES.F32
    if own != TYPES.F32:
      stored = gguf_lib.quantize(stored, own)
    raw = None if own in (TYPES.F32, TYPES.F16) else own
    name = name if name.startswith("rope_") else gguf_name(name)
    writer.add_tensor(name, stored, raw_dtype=raw)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def rounded(weight, kind):
  """What is left of a weight that was stored as `kind`."""
  if weight.ndim == 1 or kind == TYPES.F32:
    return weight
  return gguf_lib.dequantize(gguf_lib.quantize(weight, kind), kind)


def test_config_is_that_of_the_llama(tmp_path):
  config = gguf.read_gguf_config(write(tmp_path / "m.gguf", hf_weights()))
  assert config["model_type"] == "llama"
  assert config["hidden_size"] == HIDDEN
  assert config["num_hidden_layers"] == LAYERS
  assert config["num_attention_heads"] == HEADS
  assert config["num_key_value_heads"] == KV_HEADS
  assert config["head_dim"] == HEAD_DIM
  assert config["intermediate_size"] == FFN
  assert config["vocab_size"] == VOCAB
  assert config["rope_theta"] == 5e5
  assert config["rms_norm_eps"] == np.float32(1e-5)
  assert config["tie_word_embeddings"] is True
  assert config["attention_bias"] is False
  assert "rope_scaling" not in config


def test_untied_head_and_biases_are_seen(tmp_path):
  weights = hf_weights(bias=True)
  weights["lm_head.weight"] = np.ones((VOCAB, HIDDEN), np.float32)
  path = write(tmp_path / "m.gguf", weights)
  config = gguf.read_gguf_config(path)
  assert config["tie_word_embeddings"] is False
  assert config["attention_bias"] is True
  source = gguf.GgufTensors(path)
  assert source.names() == set(weights)
  bias = "model.layers.1.self_attn.q_proj.bias"
  np.testing.assert_array_equal(source.read(bias, ()), weights[bias])


@pytest.mark.parametrize("kind", [TYPES.F32, TYPES.F16, TYPES.BF16, TYPES.Q8_0])
def test_every_tensor_and_slice_comes_back(tmp_path, kind):
  weights = hf_weights()
  source = gguf.GgufTensors(write(tmp_path / "m.gguf", weights, kind))
  assert source.names() == set(weights)
  for name, weight in weights.items():
    assert source.shape(name) == weight.shape
    want = rounded(weight, kind)
    full = source.read(name, ())
    np.testing.assert_array_equal(full.astype(np.float32), want)
    index = (slice(3, 21, 2), slice(5, None))[: weight.ndim]
    part = source.read(name, index)
    assert part.dtype == full.dtype
    np.testing.assert_array_equal(part.astype(np.float32), want[index])
  matrix = source.read("model.embed_tokens.weight", ())
  stored = {TYPES.F16: np.float16, TYPES.BF16: ml_dtypes.bfloat16}
  assert matrix.dtype == stored.get(kind, np.float32)


def llama3_factors(factor, low=1.0, high=4.0, positions=8192):
  """As llama.cpp's converter writes them, case by case."""
  factors = []
  for i in range(0, HEAD_DIM, 2):
    wavelength = 2 * np.pi * 5e5 ** (i / HEAD_DIM)
    if wavelength < positions / high:
      factors.append(1.0)
    elif wavelength > positions / low:
      factors.append(factor)
    else:
      smooth = (positions / wavelength - low) / (high - low)
      factors.append(1.0 / ((1.0 - smooth) / factor + smooth))
  return np.asarray(factors, np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_rope_factors_become_the_rule(tmp_path, factor):
  weights = hf_weights() | {"rope_freqs.weight": llama3_factors(factor)}
  path = write(tmp_path / "m.gguf", weights)
  assert gguf.read_gguf_config(path)["rope_scaling"] == {
    "rope_type": "llama3",
    "factor": factor,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
  }
  assert "rope_freqs.weight" not in gguf.GgufTensors(path).names()


def test_linear_rope_scaling(tmp_path):
  scaled = {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0}
  path = write(tmp_path / "m.gguf", hf_weights(), **scaled)
  scaling = gguf.read_gguf_config(path)["rope_scaling"]
  assert scaling == {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
  ("extra", "named"),
  [
    ({"architecture": "qwen2"}, "'qwen2'"),
    ({"expert_count": 8}, "expert_count"),
    ({"logit_scale": 2.0}, "llama.logit_scale"),
    ({"rope__scaling__type": "yarn"}, "'yarn'"),
    ({"rope__dimension_count": 8}, "rope.dimension_count"),
    ({"attention__head_count_kv": [2, 4]}, "head_count_kv"),
    ({"block_count": None}, "llama.block_count"),
  ],
)
def test_what_is_not_implemented_is_refused_by_name(tmp_path, extra, named):
  path = write(tmp_path / "m.gguf", hf_weights(), **extra)
  with pytest.raises(errors.InputError, match=r"m\.gguf") as caught:
    gguf.GgufTensors(path)
  assert named in str(caught.value)


def test_other_rope_factors_and_tensors_are_refused(tmp_path):
  odd = {"rope_freqs.weight": llama3_factors(8.0, positions=4096)}
  path = write(tmp_path / "odd.gguf", hf_weights() | odd)
  with pytest.raises(errors.InputError, match=r"rope_freqs\.weight"):
    gguf.read_gguf_config(path)
  names = dict(GGUF_NAMES)
  try:
    GGUF_NAMES["self_attn.o_proj"] = "attn_q_norm"
    path = write(tmp_path / "norm.gguf", hf_weights())
  finally:
    GGUF_NAMES.update(names)
  with pytest.raises(errors.InputError, match="attn_q_norm"):
    gguf.GgufTensors(path)


def test_damaged_files_are_refused_with_their_name(tmp_path):
  whole = write(tmp_path / "m.gguf", hf_weights()).read_bytes()
  bad = tmp_path / "bad.gguf"
  # The header alone is about 3 kB: cuts in the keys, the tensor list, the data.
  for length in (0, 3, 20, 300, 1500, len(whole) // 2, len(whole) - 1):
    bad.write_bytes(whole[:length])
    with pytest.raises(errors.InputError, match=r"bad\.gguf"):
      gguf.read_gguf_config(bad)
  bad.write_bytes(b"PK\x03\x04" + whole[4:])
  with pytest.raises(errors.InputError, match="not a GGUF"):
    gguf.read_gguf_config(bad)
  with pytest.raises(errors.InputError, match="no such file"):
    gguf.read_gguf_config(tmp_path / "none.gguf")


def test_a_replaced_file_is_read_again(tmp_path):
  path = write(tmp_path / "m.gguf", hf_weights())
  assert gguf.read_gguf_config(path)["rope_theta"] == 5e5
  path.unlink()
  write(path, hf_weights(), rope__freq_base=1e4)
  assert gguf.read_gguf_config(path)["rope_theta"] == 1e4
