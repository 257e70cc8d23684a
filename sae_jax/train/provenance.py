# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Where a dictionary is from, in SAELens's words."""

import dataclasses
from typing import Any

from sae_jax import artifacts, store, version
from sae_jax.train import config as config_lib


def identity(source: store.Store) -> str:
  """A hash of what the store's rows are; the same wherever the store lies."""
  manifest = source.manifest
  if manifest.window:  # it is read while it is written
    return artifacts.hash_json([manifest.config, manifest.text])
  return artifacts.hash_json(dataclasses.asdict(manifest))


def metadata(
  config: config_lib.TrainConfig, source: store.Store, hook: str
) -> dict[str, Any]:
  """The `metadata` of the exported `cfg.json`."""
  manifest = source.manifest
  return {
    "model_name": manifest.model,
    "hook_name": hook,
    "context_size": manifest.context_length,
    "dataset_path": manifest.text.get("path", ""),
    "training_tokens": config.steps * config.stream.batch_size,
    "sae_jax_version": version.__version__,
    "sae_jax_store": identity(source),
  }
