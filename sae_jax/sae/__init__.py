# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a sparse autoencoder is: configuration, arrays, encode and decode."""

from sae_jax.sae.coding import (
  add_rest,
  decode,
  encode,
  encode_dense,
  to_dense,
)
from sae_jax.sae.config import DENSE, SaeConfig
from sae_jax.sae.dictionary import (
  ACTIVATIONS,
  Metadata,
  Params,
  Sae,
  fold_scale,
  make_sae,
  partition_specs,
)

__all__ = [
  "ACTIVATIONS",
  "DENSE",
  "Metadata",
  "Params",
  "Sae",
  "SaeConfig",
  "add_rest",
  "decode",
  "encode",
  "encode_dense",
  "fold_scale",
  "make_sae",
  "partition_specs",
  "to_dense",
]
