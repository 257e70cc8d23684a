# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Where a dictionary is from, in SAELens's words."""

import pathlib
from typing import Any

from sae_jax import store, version
from sae_jax.train import config as config_lib
from sae_jax.train import start


def metadata(
  config: config_lib.TrainConfig, source: store.Store, hook: str
) -> dict[str, Any]:
  """The `metadata` of the exported `cfg.json`."""
  manifest = source.manifest
  read = start.inputs(config, source)
  return {
    "model_name": _name(manifest.model),
    "hook_name": hook,
    "context_size": manifest.context_length,
    "dataset_path": manifest.text_source,
    "prepend_bos": manifest.prepends_bos,
    "training_tokens": config.steps * config.stream.batch_size,
    "sae_jax_version": version.__version__,
    **{f"sae_jax_{name}": value for name, value in read.items()},
    **_joined(source, hook),
  }


def _joined(source: store.Store, hook: str) -> dict[str, Any]:
  """Of a crosscoder: which rows its blocks are of, in their order."""
  if not isinstance(source, store.Joined):
    return {}
  return {
    "sae_jax_joined": [
      {
        "store": one.store.identity,
        "model": _name(one.store.manifest.model),
        "hook": one.hook,
      }
      for one in source.sources(hook)
    ]
  }


def _name(model: str) -> str:
  """A hub id as it is; of a local path, which is nobody else's, the end."""
  path = pathlib.PurePath(model)
  return path.name if path.is_absolute() else model
