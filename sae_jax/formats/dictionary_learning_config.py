# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`config.json` of dictionary_learning, and what it says in SAELens's words."""

import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sae_jax import sae
from sae_jax.formats import provenance

CONFIG = "config.json"
_TRAINERS = {
  "AutoEncoderTopK": "TopKTrainer",
  "BatchTopKSAE": "BatchTopKTrainer",
  "MatryoshkaBatchTopKSAE": "MatryoshkaBatchTopKTrainer",
  "JumpReluAutoEncoder": "JumpReluTrainer",
  "GatedAutoEncoder": "GatedSAETrainer",
  "AutoEncoder": "StandardTrainer",
  "AutoEncoderNew": "StandardTrainerAprilUpdate",
}
_TRAINED_AS = {
  "BatchTopKSAE": "batchtopk",
  "MatryoshkaBatchTopKSAE": "matryoshka_batchtopk",
}
_SITES = r"resid_pre|resid_post|resid_mid|attn_out|mlp_out"
# Where the whole of what was read is kept.
_READ = "dictionary_learning"


def metadata(
  config: Mapping[str, Any], dict_class: str, state: Mapping[str, Any]
) -> dict[str, Any]:
  """The metadata of a dictionary that is not one of ours."""
  trainer, buffer = config.get("trainer", {}), config.get("buffer", {})
  found = {
    "model_name": trainer.get("lm_name"),
    "hook_name": _hook(trainer),
    "context_size": buffer.get("ctx_len"),
    _READ: dict(config),
  }
  if dict_class in _TRAINED_AS:
    found["training_architecture"] = _TRAINED_AS[dict_class]
  details = {
    name: state[name].item()
    for name in ("k", "threshold")
    if np.ndim(state.get(name, [0])) == 0
  }
  if "group_sizes" in state:
    widths = itertools.accumulate(np.asarray(state["group_sizes"]).tolist())
    details["matryoshka_widths"] = list(widths)
  if details:
    found["training_architecture_details"] = details
  return {name: value for name, value in found.items() if value is not None}


def _hook(trainer: Mapping[str, Any]) -> str | None:
  """Of `resid_post_layer_12`, and of a layer without the name of a module."""
  module, layer = trainer.get("submodule_name"), trainer.get("layer")
  if module is None and type(layer) is int:
    return f"blocks.{layer}.hook_resid_post"
  named = re.fullmatch(rf"({_SITES})_layer_(\d+)", str(module))
  return f"blocks.{named[2]}.hook_{named[1]}" if named else None


def values(
  dictionary: sae.Sae, dict_class: str, k: int | None
) -> dict[str, Any]:
  """What `config.json` says of a dictionary that is saved.

  Of one that was read from this format, with all that was said then.
  """
  known = dictionary.metadata
  read = known.get(_READ, {})
  layer, site = provenance.layer(known)
  widths = provenance.training(known, "matryoshka_widths")
  trainer = {
    "trainer_class": _TRAINERS[dict_class],
    "dict_class": dict_class,
    "activation_dim": dictionary.d_model,
    "dict_size": dictionary.latents,
    "lm_name": known.get("model_name"),
    "layer": layer,
    "submodule_name": None if layer is None else f"{site}_layer_{layer}",
  }
  if k is not None:
    trainer["k"] = k
  if dict_class == "MatryoshkaBatchTopKSAE":
    trainer["group_sizes"] = group_sizes(widths)
  return {
    "trainer": {**read.get("trainer", {}), **trainer},
    "buffer": {
      **read.get("buffer", {}),
      "ctx_len": known.get("context_size"),
    },
    provenance.KEY: provenance.kept(dictionary),
  }


def group_sizes(widths: list[int]) -> list[int]:
  """How much each of ascending prefixes adds to the one before it."""
  return [int(n) for n in np.diff(widths, prepend=0)]
