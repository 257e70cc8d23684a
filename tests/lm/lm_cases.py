# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Small configs of every family, as arguments of transformers' classes."""

_SIZES = dict(
  vocab_size=208,
  hidden_size=64,
  intermediate_size=112,
  num_hidden_layers=3,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=256,
)
_NEOX = {k: v for k, v in _SIZES.items() if k != "num_key_value_heads"}
_GEMMA = dict(
  **_SIZES,
  head_dim=32,
  sliding_window=8,
  query_pre_attn_scalar=24,
)
_LLAMA_3 = dict(
  rope_type="llama3",
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=32,
  rope_theta=10000.0,
)
_LINEAR = dict(rope_type="linear", factor=4.0, rope_theta=10000.0)

# name -> (config class, its arguments)
CASES = {
  "llama": ("LlamaConfig", _SIZES),
  "llama-rope3": ("LlamaConfig", {**_SIZES, "rope_parameters": _LLAMA_3}),
  "llama-wide-tied": (
    "LlamaConfig",
    {**_SIZES, "head_dim": 32, "tie_word_embeddings": True},
  ),
  "llama-biased": (
    "LlamaConfig",
    {
      **_SIZES,
      "attention_bias": True,
      "mlp_bias": True,
      "rope_parameters": _LINEAR,
      "hidden_act": "gelu",
    },
  ),
  "mistral": ("MistralConfig", {**_SIZES, "sliding_window": 8}),
  "qwen2": ("Qwen2Config", _SIZES),
  "qwen2-window": (
    "Qwen2Config",
    {
      **_SIZES,
      "use_sliding_window": True,
      "sliding_window": 8,
      "max_window_layers": 1,
    },
  ),
  "qwen3": ("Qwen3Config", {**_SIZES, "head_dim": 32}),
  # The cap is low against the scores of the scaled q and k, so that it bites.
  "gemma2": ("Gemma2Config", {**_GEMMA, "final_logit_softcapping": 3.0}),
  "gemma3": (
    "Gemma3TextConfig",
    {**_GEMMA, "sliding_window_pattern": 3, "num_hidden_layers": 4},
  ),
  "gpt2": (
    "GPT2Config",
    dict(
      vocab_size=211,
      n_embd=64,
      n_layer=3,
      n_head=4,
      n_positions=64,
      bos_token_id=0,
      eos_token_id=0,
    ),
  ),
  "pythia": ("GPTNeoXConfig", {**_NEOX, "rotary_pct": 0.25}),
  "neox-sequential": (
    "GPTNeoXConfig",
    {**_NEOX, "rotary_pct": 1.0, "use_parallel_residual": False},
  ),
}
