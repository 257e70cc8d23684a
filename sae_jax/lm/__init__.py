# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Hugging Face causal language models as JAX programs."""

from sae_jax.lm.decoding import generate, generate_tokens
from sae_jax.lm.hooks import Edit, Entry, Hook
from sae_jax.lm.hooks import parse as parse_hook
from sae_jax.lm.load import LanguageModel, load_lm
from sae_jax.lm.run import Outputs, activations, forward, logits
from sae_jax.lm.save import save_hf
from sae_jax.lm.score import completion_logprobs, token_logprobs

__all__ = [
  "Edit",
  "Entry",
  "Hook",
  "LanguageModel",
  "Outputs",
  "activations",
  "completion_logprobs",
  "forward",
  "generate",
  "generate_tokens",
  "load_lm",
  "logits",
  "parse_hook",
  "save_hf",
  "token_logprobs",
]
