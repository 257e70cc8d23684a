# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Works on every platform: the reference, a chunk of rows at a time."""

import jax

from sae_jax.ops import rows
from sae_jax.ops.topk_encode import candidates as candidates_lib
from sae_jax.ops.topk_encode import reference

# Pre-activations of one chunk, in elements: 256 MiB of float32.
_CHUNK_ELEMENTS = 1 << 26


def chunk_rows(latents: int) -> int:
  """How many rows' pre-activations are in memory at once."""
  return max(8, _CHUNK_ELEMENTS // latents)


def candidates(
  x_BD: jax.Array, w_enc_FD: jax.Array, b_enc_F: jax.Array, k: int
) -> candidates_lib.Candidates:
  """See `api.topk_encode`; writes [chunk, F], never [B, F] when that is big."""
  return rows.map_chunks(
    lambda x_CD: reference.candidates(x_CD, w_enc_FD, b_enc_F, k),
    chunk_rows(w_enc_FD.shape[0]),
    x_BD,
  )
