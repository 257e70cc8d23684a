# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Where a dictionary is from, in SAELens's words."""

import pathlib
from typing import Any

from sae_jax import store, version
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
    **hooks(config),
    "context_size": manifest.context_length,
    "dataset_path": manifest.text_source,
    "prepend_bos": manifest.prepends_bos,
    "training_tokens": config.steps * config.stream.batch_size,
    "sae_jax_version": version.__version__,
    "sae_jax_normalize": config.normalize,
    **{f"sae_jax_{name}": value for name, value in read.items()},
    **_joined(config, source),
  }


def hooks(config: config_lib.TrainConfig) -> dict[str, Any]:
  """What is encoded, and what a transcoder decodes to."""
  if not config.target:
    return {"hook_name": config.hook}
  return {"hook_name": config.hook, "hook_name_out": config.target}


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
