# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading config.json: both spellings, published models, and refusals."""

import json

import lm_cases
import numpy as np
import pytest
import transformers

from sae_jax import errors
from sae_jax.lm import config

LLAMA = dict(
  model_type="llama",
  vocab_size=128256,
  hidden_size=4096,
  intermediate_size=14336,
  num_hidden_layers=32,
  num_attention_heads=32,
  num_key_value_heads=8,
  rms_norm_eps=1e-5,
  rope_theta=500000.0,
  rope_scaling=dict(
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
    rope_type="llama3",
  ),
  eos_token_id=[128001, 128008, 128009],
)
GPT2 = dict(model_type="gpt2", vocab_size=50257, n_embd=768, n_layer=12,
            n_head=12, n_positions=1024)  # fmt: skip


def read(raw, **changes):
  return config.from_hf({**raw, **changes}, place="x/config.json")


def test_llama_31_in_both_spellings():
  c = read(LLAMA)
  assert (c.head_dim, c.num_kv_heads, c.tied_embedding) == (128, 8, False)
  assert c.eos_ids == (128001, 128008, 128009)
  # Of Llama 3.1: short wavelengths are kept, long ones 8 times as long.
  plain = 500000.0 ** (-np.arange(0, 128, 2) / 128)
  np.testing.assert_allclose(c.rope_frequencies[:20], plain[:20], rtol=1e-12)
  np.testing.assert_allclose(c.rope_frequencies[-20:], plain[-20:] / 8)
  new = {k: v for k, v in LLAMA.items() if not k.startswith("rope")}
  new["rope_parameters"] = {**LLAMA["rope_scaling"], "rope_theta": 500000.0}
  assert read(new) == c


@pytest.mark.parametrize("name", lm_cases.CASES)
def test_every_field_that_transformers_writes_is_understood(name, tmp_path):
  """A default that is left out means what transformers takes it for."""
  class_name, arguments = lm_cases.CASES[name]
  hf = getattr(transformers, class_name)(**arguments)
  hf.save_pretrained(tmp_path)
  raw = json.loads((tmp_path / "config.json").read_text())
  full = config.from_hf(raw, place="x")
  short = {"model_type": raw["model_type"], **arguments}
  assert config.from_hf(short, place="x") == full


@pytest.mark.parametrize(
  "class_name",
  ["Gemma2Config", "Gemma3TextConfig", "GPT2Config", "GPTNeoXConfig"],
)
def test_defaults_are_those_of_transformers(class_name):
  hf = getattr(transformers, class_name)()
  raw = json.loads(hf.to_json_string(use_diff=False))
  full = config.from_hf(raw, place="x")
  sizes = ("hidden_size", "intermediate_size", "num_hidden_layers",
           "num_attention_heads", "vocab_size", "n_embd", "n_head", "n_layer",
           "n_positions", "model_type")  # fmt: skip
  short = {k: raw[k] for k in sizes if k in raw}
  short["eos_token_id"] = raw["eos_token_id"]
  assert config.from_hf(short, place="x") == full


def test_gemma3_multimodal_gives_its_language_model():
  # The text_config of google/gemma-3-4b-it, which leaves out most fields.
  text = dict(
    hidden_size=2560,
    intermediate_size=10240,
    model_type="gemma3_text",
    num_hidden_layers=34,
    rope_scaling=dict(factor=8.0, rope_type="linear"),
    sliding_window=1024,
  )
  c = config.from_hf(
    dict(model_type="gemma3", text_config=text, eos_token_id=[1, 106]),
    place="x",
  )
  assert (c.num_heads, c.num_kv_heads, c.head_dim) == (8, 4, 256)
  assert c.window == 1024 and c.eos_ids == (1, 106)
  assert [i for i, s in enumerate(c.sliding_layers) if not s][:3] == [5, 11, 17]
  assert c.rope_frequencies[0] == 1 / 8 and c.rope_frequencies_local[0] == 1.0
  np.testing.assert_allclose(c.rope_frequencies_local[1], 1e4 ** (-1 / 128))
  np.testing.assert_allclose(c.rope_frequencies[1], 1e6 ** (-1 / 128) / 8)
  with pytest.raises(errors.InputError, match="gemma3 with a text_config"):
    config.from_hf(dict(model_type="gemma3", vision_config={}), place="x")


def test_mistral_window_null_is_none():
  assert read(LLAMA, model_type="mistral", rope_scaling=None).window == 4096
  c = read(LLAMA, model_type="mistral", rope_scaling=None, sliding_window=None)
  assert c.window == 0 and not any(c.sliding_layers)


@pytest.mark.parametrize(
  ("raw", "change", "message"),
  [
    (LLAMA, dict(model_type="mixtral"), "model_type='mixtral'"),
    (LLAMA, dict(model_type=None), "model_type=None"),
    (LLAMA, dict(hidden_act="gelu_10"), "hidden_act='gelu_10'"),
    (LLAMA, dict(quantization_config={"bits": 4}), "quantization_config"),
    (LLAMA, dict(num_local_experts=8), "num_local_experts=8"),
    (LLAMA, dict(hidden_size=None), "'hidden_size' is missing"),
    (LLAMA, dict(num_key_value_heads=7), "num_key_value_heads=7"),
    (LLAMA, dict(layer_types=["linear_attention"] * 32), "layer_types"),
    (LLAMA, dict(layer_types=["full_attention"] * 3), "32 layers"),
    (LLAMA, dict(layer_types=["sliding_attention"] * 32), "sliding_window"),
    *[
      (LLAMA, dict(rope_scaling=dict(rope_type=kind, factor=2.0)), kind)
      for kind in ("yarn", "dynamic", "longrope")
    ],
    (LLAMA, dict(rope_scaling=dict(type="yarn")), "yarn"),
    (LLAMA, dict(model_type="mistral", attention_bias=True), "attention_bias"),
    (LLAMA, dict(model_type="qwen2", mlp_bias=True), "mlp_bias"),
    (GPT2, dict(scale_attn_by_inverse_layer_idx=True), "inverse_layer_idx"),
    (GPT2, dict(reorder_and_upcast_attn=True), "reorder_and_upcast_attn"),
    (GPT2, dict(add_cross_attention=True), "add_cross_attention"),
    (GPT2, dict(activation_function="tanh"), "activation_function='tanh'"),
    (GPT2, dict(n_head=7), "n_head=7"),
  ],
)  # fmt: skip
def test_what_is_not_done_is_refused_by_name(raw, change, message):
  with pytest.raises(errors.InputError, match=message) as caught:
    read(raw, **change)
  assert "x/config.json" in str(caught.value)
