# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What transformers takes for granted where a config.json says nothing."""

from typing import Any

# What transformers assumes where a config.json says nothing. A field that is
# there but null means "none".
_LLAMA = {
  "hidden_act": "silu",
  "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0,
  "rotary_pct": 1.0,
  "eos_token_id": 2,
}
_QWEN = {
  **_LLAMA,
  "sliding_window": 4096,
  "max_window_layers": 28,
  "eos_token_id": None,
}
_GEMMA = {
  "vocab_size": 256000,
  "hidden_size": 2304,
  "intermediate_size": 9216,
  "num_hidden_layers": 26,
  "num_attention_heads": 8,
  "num_key_value_heads": 4,
  "head_dim": 256,
  "hidden_activation": "gelu_pytorch_tanh",
  "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0,
  "rotary_pct": 1.0,
  "query_pre_attn_scalar": 256,
  "sliding_window": 4096,
  "sliding_window_pattern": 2,
  "tie_word_embeddings": True,
  "eos_token_id": 1,
}
DEFAULTS: dict[Any, dict[str, Any]] = {
  "llama": _LLAMA,
  "mistral": {**_LLAMA, "sliding_window": 4096, "num_key_value_heads": 8},
  "qwen2": _QWEN,
  "qwen3": {**_QWEN, "head_dim": 128},
  "gemma2": {
    **_GEMMA,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
  },
  "gemma3_text": {
    **_GEMMA,
    "vocab_size": 262208,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "sliding_window_pattern": 6,
  },
  "gpt2": {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
    "eos_token_id": 50256,
  },
  "gpt_neox": {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "rotary_emb_base": 10000.0,
    "rotary_pct": 0.25,
    "use_parallel_residual": True,
    "attention_bias": True,
    "eos_token_id": 2,
  },
}
ACTIVATIONS = {
  "silu": "silu",
  "swish": "silu",
  "relu": "relu",
  "gelu": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_fast": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
}
# Each of these, when it is there and neither null, false, zero nor empty,
# changes what a model computes in a way that the decoder does not follow.
REFUSED = (
  "quantization_config",
  "num_local_experts",
  "num_experts",
  "n_routed_experts",
  "add_cross_attention",
  "scale_attn_by_inverse_layer_idx",
  "reorder_and_upcast_attn",
  "pruned_heads",
  "use_bidirectional_attention",
)
