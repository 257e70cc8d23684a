# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`cpu` and `xla`: the reference, a chunk of rows at a time.

The gathered rows of a chunk, [chunk, K, D], stay in the cache (CPU) or in a
bounded piece of device memory (elsewhere).
"""

import jax

from sae_jax.ops import rows
from sae_jax.ops.sparse_decode import reference

# Gathered elements per chunk. CPU: 32 rows of K=32, D=576 (2.4 MB of float32)
# measured 15 times faster than the whole batch at once. Elsewhere: 256 MiB.
_CPU_ELEMENTS = 32 * 32 * 576
_XLA_ELEMENTS = 1 << 26


def _chunk(elements: int, indices_BK: jax.Array, w_FD: jax.Array) -> int:
  return max(1, elements // (indices_BK.shape[1] * w_FD.shape[1]))


def _sparse_decode(elements, values_BK, indices_BK, w_dec_FD):
  return rows.map_chunks(
    lambda v, i: reference.sparse_decode(v, i, w_dec_FD),
    _chunk(elements, indices_BK, w_dec_FD),
    values_BK,
    indices_BK,
  )


def _row_dots(elements, x_BD, indices_BK, w_FD):
  return rows.map_chunks(
    lambda x, i: reference.row_dots(x, i, w_FD),
    _chunk(elements, indices_BK, w_FD),
    x_BD,
    indices_BK,
  )


def _residual(elements, values_BK, indices_BK, w_dec_FD, target_BD):
  return rows.map_chunks(
    lambda v, i, t: reference.residual(v, i, w_dec_FD, t),
    _chunk(elements, indices_BK, w_dec_FD),
    values_BK,
    indices_BK,
    target_BD,
  )


def sparse_decode_cpu(values_BK, indices_BK, w_dec_FD):
  return _sparse_decode(_CPU_ELEMENTS, values_BK, indices_BK, w_dec_FD)


def sparse_decode_xla(values_BK, indices_BK, w_dec_FD):
  return _sparse_decode(_XLA_ELEMENTS, values_BK, indices_BK, w_dec_FD)


def row_dots_cpu(x_BD, indices_BK, w_FD):
  return _row_dots(_CPU_ELEMENTS, x_BD, indices_BK, w_FD)


def row_dots_xla(x_BD, indices_BK, w_FD):
  return _row_dots(_XLA_ELEMENTS, x_BD, indices_BK, w_FD)


def residual_cpu(values_BK, indices_BK, w_dec_FD, target_BD):
  return _residual(_CPU_ELEMENTS, values_BK, indices_BK, w_dec_FD, target_BD)


def residual_xla(values_BK, indices_BK, w_dec_FD, target_BD):
  return _residual(_XLA_ELEMENTS, values_BK, indices_BK, w_dec_FD, target_BD)
