# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax harvest`: text and a language model in, an activation store out."""

from typing import Any

from sae_jax import harvest

Config = harvest.HarvestConfig


def run(config: Config, out: str) -> dict[str, Any]:
  """Harvests, resumes, or returns what the finished store in `out` holds."""
  manifest = harvest.harvest(config, out)
  return {
    "store": out,
    "rows": manifest.rows,
    "hooks": manifest.hooks,
    "dropped": manifest.dropped,
  }
