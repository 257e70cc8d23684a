# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a sparse autoencoder is: configuration, arrays, encode and decode."""

from sae_jax.sae.config import SaeConfig
from sae_jax.sae.dictionary import (
  Metadata,
  Params,
  Sae,
  decode,
  encode,
  encode_dense,
  fold_scale,
  make_sae,
  to_dense,
)

__all__ = [
  "Metadata",
  "Params",
  "Sae",
  "SaeConfig",
  "decode",
  "encode",
  "encode_dense",
  "fold_scale",
  "make_sae",
  "to_dense",
]
