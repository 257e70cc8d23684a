# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A store's rows in order, in batches of one shape, on the mesh.

For measuring, not for training: nothing is shuffled, every asked row comes
exactly once, and the next batch is read while one is computed.
"""

import concurrent.futures
import dataclasses
from collections.abc import Iterator

import jax
import ml_dtypes
import numpy as np

from sae_jax import errors, store
from sae_jax.interpret import on_mesh


@dataclasses.dataclass(frozen=True)
class Batch:
  """Rows `[start, start + rows)` of a store; the rest of `x_BD` is zero."""

  x_BD: jax.Array  # bfloat16, split over `sae` and `data`
  start: int
  rows: int


@dataclasses.dataclass(frozen=True)
class Wanted:
  """Rows of a store found by document and position; the rest is zero."""

  x_BD: jax.Array  # bfloat16, split over `sae` and `data`
  keys_N: np.ndarray  # see `key`


def key(documents: np.ndarray | int, positions: np.ndarray) -> np.ndarray:
  """One int64 per (document, position); orders by document, then position."""
  high, low = np.asarray(documents, np.int64), np.asarray(positions, np.int64)
  return high << 32 | low


def batches(
  source: store.Store,
  hook: str,
  chunks: range,
  *,
  batch_rows: int,
  mesh: jax.sharding.Mesh,
) -> Iterator[Batch]:
  """Reads whole read chunks, about `batch_rows` rows at a time.

  Args:
    source: the store.
    hook: one of its hooks.
    chunks: consecutive read chunks.
    batch_rows: rows per batch, rounded to whole read chunks (at least one).
    mesh: where the batches go.

  Raises:
    errors.InputError: the range is empty, has gaps, or leaves the store.
  """
  _check(source, chunks)
  per_batch, size = _sizes(source, batch_rows, mesh)
  groups = _groups(chunks, per_batch)

  def read(group: range) -> list[np.ndarray]:
    return source.read_chunks(hook, list(group))

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    waiting = pool.submit(read, groups[0])
    for i, group in enumerate(groups):
      parts = waiting.result()
      if i + 1 < len(groups):
        waiting = pool.submit(read, groups[i + 1])
      x_BD = put(parts, size, mesh)
      yield Batch(x_BD, group.start * source.read_rows, sum(map(len, parts)))


def wanted(
  source: store.Store,
  hook: str,
  chunks: range,
  keys_M: np.ndarray,
  *,
  batch_rows: int,
  mesh: jax.sharding.Mesh,
) -> Iterator[Wanted]:
  """Finds rows by `key` and packs them densely; chunks without any stay unread.

  Args:
    source: the store.
    hook: one of its hooks.
    chunks: consecutive read chunks to look in.
    keys_M: sorted; keys that are no row of these chunks are passed over.
    batch_rows: as for `batches`, with the same batch shape.
    mesh: where the batches go.
  """
  _check(source, chunks)
  per_batch, size = _sizes(source, batch_rows, mesh)
  parts, keys, rows = [], [], 0
  for group in _groups(chunks, per_batch):
    for x_ND, keys_N in _matches(source, hook, group, keys_M):
      if rows + len(x_ND) > size:
        yield Wanted(put(parts, size, mesh), np.concatenate(keys))
        parts, keys, rows = [], [], 0
      parts.append(x_ND)
      keys.append(keys_N)
      rows += len(x_ND)
  if rows:
    yield Wanted(put(parts, size, mesh), np.concatenate(keys))


def _matches(
  source: store.Store, hook: str, group: range, keys_M: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Per read chunk with wanted rows: those rows and their keys."""
  step = source.read_rows
  start, stop = group.start * step, min(group.stop * step, source.rows)
  keys_R = key(*source.positions(start, stop).T)
  hit_R = np.isin(keys_R, keys_M)
  found = {
    chunk: np.flatnonzero(hit_R[i * step : (i + 1) * step])
    for i, chunk in enumerate(group)
  }
  found = {chunk: at_N for chunk, at_N in found.items() if len(at_N)}
  if not found:
    return
  for x_RD, (chunk, at_N) in zip(
    source.read_chunks(hook, list(found)), found.items(), strict=True
  ):
    yield x_RD[at_N], keys_R[(chunk - group.start) * step + at_N]


def _sizes(
  source: store.Store, batch_rows: int, mesh: jax.sharding.Mesh
) -> tuple[int, int]:
  """Read chunks per batch; rows of a batch with padding for the mesh."""
  per_batch = max(1, batch_rows // source.read_rows)
  lanes = on_mesh.lanes(mesh)
  return per_batch, -(-per_batch * source.read_rows // lanes) * lanes


def _groups(chunks: range, per_batch: int) -> list[range]:
  return [
    range(first, min(first + per_batch, chunks.stop))
    for first in range(chunks.start, chunks.stop, per_batch)
  ]


def put(
  parts: list[np.ndarray], size: int, mesh: jax.sharding.Mesh
) -> jax.Array:
  x_BD = np.zeros((size, parts[0].shape[1]), ml_dtypes.bfloat16)
  np.concatenate(parts, out=x_BD[: sum(map(len, parts))])
  sharding = jax.NamedSharding(mesh, jax.P(on_mesh.ROWS, None))
  return jax.make_array_from_callback(x_BD.shape, sharding, lambda i: x_BD[i])


def _check(source: store.Store, chunks: range) -> None:
  if not chunks or chunks.step != 1:
    raise errors.InputError(
      f"chunks {chunks} of {source.path}: give a non-empty range with step 1;"
      " a store too small to hold any rows out needs more text"
    )
  if chunks.start < 0 or chunks.stop > source.num_chunks:
    raise errors.InputError(
      f"chunks {chunks}: {source.path} has read chunks"
      f" 0..{source.num_chunks - 1}"
    )
