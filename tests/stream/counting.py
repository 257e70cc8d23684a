# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A store in memory whose rows say their number, for tests of the stream."""

import ml_dtypes
import numpy as np

from sae_jax import stream


class CountingStore:
  """Rows that carry their number: exact in bf16 as (row % 256, row // 256)."""

  def __init__(self, rows, read_rows=4):
    self.rows, self.read_rows, self.write_rows = rows, read_rows, 2 * read_rows
    self.num_chunks = -(-rows // read_rows)
    self.bounded, self.identity, self.path = False, "abc", "/s"
    self.chunks_read = []

  def hook(self, name):
    return name

  def read_chunks(self, hook, chunk_ids):
    self.chunks_read += chunk_ids
    return [self.chunk(chunk) for chunk in chunk_ids]

  def chunk(self, chunk):
    start = chunk * self.read_rows
    row_R = np.arange(start, min(start + self.read_rows, self.rows))
    columns = np.stack([row_R % 256, row_R // 256], axis=1)
    return columns.astype(ml_dtypes.bfloat16)


def row_numbers(x_BD):
  x_BD = np.asarray(x_BD).astype(np.int64)
  return x_BD[:, 0] + 256 * x_BD[:, 1]


def take(batches, n):
  return np.stack([row_numbers(next(batches)) for _ in range(n)])


def config(batch_size=8, mix_chunks=5, lanes=1, seed=0):
  return stream.StreamConfig(
    batch_size=batch_size, mix_chunks=mix_chunks, lanes=lanes, seed=seed
  )
