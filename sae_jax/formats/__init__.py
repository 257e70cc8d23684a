# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Dictionaries on disk, in the formats that others read and write."""

from sae_jax.formats.api import (
  hash_sae,
  load_sae,
  map_sae,
  open_decoder,
  save_sae,
)

__all__ = ["hash_sae", "load_sae", "map_sae", "open_decoder", "save_sae"]
