# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Sparse autoencoders on JAX: train them at scale, diff models with them."""

from sae_jax import ops
from sae_jax.formats import load_sae, save_sae
from sae_jax.lm import (
  activations,
  completion_logprobs,
  generate,
  load_lm,
  logits,
)
from sae_jax.sae import decode, encode, encode_dense
from sae_jax.store import open_store
from sae_jax.version import __version__

__all__ = [
  "__version__",
  "activations",
  "completion_logprobs",
  "decode",
  "encode",
  "encode_dense",
  "generate",
  "load_lm",
  "load_sae",
  "logits",
  "open_store",
  "ops",
  "save_sae",
]
