# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
import json

import jax
import ml_dtypes
import numpy as np
import pytest

from sae_jax import errors, mesh, stream


class FakeStore:
  """Rows that carry their own number: column 0 is row % 256, column 1 the rest."""

  def __init__(self, rows, read_rows=4, d_model=2):
    self.rows, self.read_rows, self.write_rows = rows, read_rows, 2 * read_rows
    self.num_chunks = -(-rows // read_rows)
    self.chunks_read = []

  def read_chunks(self, hook, chunk_ids):
    self.chunks_read += chunk_ids
    out = []
    for chunk in chunk_ids:
      row_R = np.arange(
        chunk * self.read_rows, min((chunk + 1) * self.read_rows, self.rows)
      )
      out.append(
        np.stack([row_R % 256, row_R // 256], 1).astype(ml_dtypes.bfloat16)
      )
    return out


def numbers(x_BD):
  x_BD = np.asarray(x_BD).astype(np.int64)
  return x_BD[:, 0] + 256 * x_BD[:, 1]


def take(s, n):
  return np.stack([numbers(next(s)) for _ in range(n)])


def test_thin():
  store = FakeStore(103)
  config = stream.StreamConfig(batch_size=8, mix_chunks=5, lanes=2)
  m = mesh.make(mesh.MeshConfig(data=4))
  s = stream.open_stream(store, "h", config, mesh=m)
  a = take(s, 103)
  for lane in range(2):
    rows = a[:, lane * 4 : lane * 4 + 4].reshape(-1)
    print(np.bincount(np.bincount(rows)))
  s.close()
  s = stream.open_stream(store, "h", config, mesh=m)
  take(s, 17)
  st = json.loads(json.dumps(s.state()))
  s.close()
  s = stream.open_stream(store, "h", config, mesh=mesh.single(), start_state=st)
  assert (take(s, 86) == a[17:]).all()
  s.close()
