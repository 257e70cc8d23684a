# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Sparse autoencoders on JAX: train them at scale, diff models with them.

A name's room is imported when the name is first used: no command needs all.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sae_jax.version import __version__

if TYPE_CHECKING:
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

_ROOMS = {
  "activations": "lm",
  "completion_logprobs": "lm",
  "decode": "sae",
  "encode": "sae",
  "encode_dense": "sae",
  "generate": "lm",
  "load_lm": "lm",
  "load_sae": "formats",
  "logits": "lm",
  "open_store": "store",
  "save_sae": "formats",
}


def __getattr__(name: str) -> Any:
  if name == "ops":
    return importlib.import_module("sae_jax.ops")
  if name not in _ROOMS:
    raise AttributeError(f"module 'sae_jax' has no attribute {name!r}")
  return getattr(importlib.import_module(f"sae_jax.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
