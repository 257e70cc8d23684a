# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Where a dictionary is from, in SAELens's words."""

import pathlib
from typing import Any

from sae_jax import sae, store, version
from sae_jax.train import config as config_lib
from sae_jax.train import start


def metadata(
  config: config_lib.TrainConfig, source: store.Store
) -> dict[str, Any]:
  """The `metadata` of the exported `cfg.json`; hooks have the store's names."""
  manifest = source.manifest
  read = start.inputs(config, source)
  return {
    "model_name": _name(manifest.model),
    **of_member(config),
    "context_size": manifest.context_length,
    "dataset_path": manifest.text_source,
    "prepend_bos": manifest.prepends_bos,
    "training_tokens": config.steps * config.stream.batch_size,
    "sae_jax_version": version.__version__,
    "sae_jax_normalize": config.normalize,
    **{f"sae_jax_{name}": value for name, value in read.items()},
    **_joined(config, source),
  }


def of_member(config: config_lib.TrainConfig) -> dict[str, Any]:
  """What the members of a sweep differ in.

  The hooks (a transcoder decodes to another one), and how it was trained: a
  BatchTopK dictionary is exported as `jumprelu`, which does not say so.
  """
  hooks = {"hook_name": config.hook}
  if config.target:
    hooks["hook_name_out"] = config.target
  return {
    **hooks,
    "training_architecture": _trained_as(config.sae),
    "training_architecture_details": _details(config.sae),
  }


def _trained_as(config: sae.SaeConfig) -> str:
  nested = "matryoshka_" if config.prefixes else ""
  names = {"batch_topk": "batchtopk", "relu": "standard"}
  return nested + names.get(config.activation, config.activation)


def _details(config: sae.SaeConfig) -> dict[str, Any]:
  details = {
    "k": config.k or None,
    "matryoshka_widths": list(config.prefixes) or None,
    "target_l0": config.target_l0,
    "sparsity": config.sparsity,
    "aux_coefficient": config.aux_coefficient,
  }
  return {name: v for name, v in details.items() if v is not None}


def _joined(
  config: config_lib.TrainConfig, source: store.Store
) -> dict[str, Any]:
  """Of a crosscoder: which rows its blocks are of, in their order."""
  if not isinstance(source, store.Joined):
    return {}
  return {
    "sae_jax_shared_latents": config.sae.shared_latents,
    "sae_jax_exclusive_latents": list(config.sae.exclusive_latents),
    "sae_jax_joined": [
      {
        "store": one.store.identity,
        "model": _name(one.store.manifest.model),
        "hook": one.hook,
      }
      for one in source.sources(config.hook)
    ],
  }


def _name(model: str) -> str:
  """A hub id as it is; of a local path, which is nobody else's, the end."""
  path = pathlib.PurePath(model)
  return path.name if path.is_absolute() else model
