# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The tokens and rows of a finished store, for another model to be run on.

Reads the store's `tokens/` and `rows/`. A harvest from here writes the same two
arrays again, byte for byte, so the two stores are paired.
"""

import bisect
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from sae_jax import errors, store
from sae_jax.harvest import config as config_lib
from sae_jax.store import layout, writer


def resolve(
  config: config_lib.HarvestConfig,
) -> tuple[config_lib.HarvestConfig, store.Store | None]:
  """The config with all that `tokens_of` decides filled in, and that store.

  Raises:
    errors.InputError: the store does not keep its rows, or a field says
      something else than the store.
  """
  if not config.tokens_of:
    return config, None
  base = store.open_store(config.tokens_of)
  if base.bounded:
    raise errors.InputError(
      f"tokens_of={base.path}: this store is bounded (window={base.window}), so"
      " its rows are deleted as they are read; give one with window=0"
    )
  decided: dict[str, Any] = {
    "rows": base.manifest.requested_rows,
    "batch_size": base.manifest.batch_size,
    "read_rows": base.read_rows,
    "write_rows": base.write_rows,
    "lanes": base.manifest.lanes,
    "seed": base.manifest.seed,
    # Its rows are what its filters kept; nothing is filtered again.
    "drop_special": True,
    "outlier_norm_multiple": 10.0,
    "window": 0,
  }
  defaults = {f.name: f.default for f in dataclasses.fields(config)}
  for name, value in decided.items():
    given = getattr(config, name)
    if given not in (value, defaults[name]):
      raise errors.InputError(
        f"{name}={given}: with tokens_of the rows and their order are those of"
        f" {base.path} ({name}={value}); leave {name} out"
      )
  _check_order(base)
  return dataclasses.replace(config, **decided), base


class Tokens:
  """Batches of tokens, and which of them are rows, lane by lane."""

  def __init__(self, base: store.Store):
    self._base = base

  def batches(
    self, lane: int, first_batch: int
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(tokens_BT int32, mask_BT bool) of a lane's batches from there on."""
    for start, stop in self._documents(lane, first_batch):
      tokens_BT = self._base.read_array(layout.TOKENS, start, stop)
      yield np.maximum(tokens_BT, 0), tokens_BT >= 0

  def rows(self, lane: int, first_batch: int) -> Iterator[np.ndarray]:
    """keep_BT bool for each of `batches`: the positions that are rows."""
    chunks = _lane_chunks(self._base, lane)
    length = self._base.manifest.context_length
    rows_R2 = np.zeros((0, 2), np.int32)
    following = None  # the next chunk's place in `chunks`
    for start, stop in self._documents(lane, first_batch):
      if following is None:
        following = bisect.bisect_left(
          chunks, start, key=lambda c: int(self._chunk(c)[-1, 0])
        )
      # A chunk's last document may go on in the next chunk.
      while following < len(chunks) and (
        not len(rows_R2) or rows_R2[-1, 0] < stop
      ):
        more_R2 = self._chunk(chunks[following])
        rows_R2 = np.concatenate([rows_R2, more_R2])
        following += 1
      document_R, position_R = rows_R2.T
      first, last = np.searchsorted(document_R, (start, stop))
      keep_BT = np.zeros((stop - start, length), bool)
      keep_BT[document_R[first:last] - start, position_R[first:last]] = True
      rows_R2 = rows_R2[last:]
      yield keep_BT

  def _documents(self, lane: int, first: int) -> Iterator[tuple[int, int]]:
    """The numbers [start, stop) of the documents of each batch of a lane."""
    manifest = self._base.manifest
    for batch in range(first, manifest.lane_batches[lane]):
      start = manifest.document_slot(lane, batch) * manifest.batch_size
      yield start, start + manifest.batch_size

  def _chunk(self, chunk: int) -> np.ndarray:
    return _text_order(self._base, chunk)


def _lane_chunks(base: store.Store, lane: int) -> list[int]:
  return [
    chunk
    for chunk in range(lane, base.manifest.write_chunks, base.manifest.lanes)
    if chunk * base.write_rows < base.rows
  ]


def _text_order(base: store.Store, chunk: int) -> np.ndarray:
  """(document, position) of a write chunk's rows before they were permuted."""
  start = chunk * base.write_rows
  stored_R2 = base.positions(start, min(start + base.write_rows, base.rows))
  order_R = writer.permutation(base.manifest.seed, chunk, len(stored_R2))
  rows_R2 = np.empty_like(stored_R2)
  rows_R2[order_R] = stored_R2
  return rows_R2


def _check_order(base: store.Store) -> None:
  """Refuses stores made by hand whose rows do not follow their text.

  A harvest goes through the text once, and stops at the last row; what has
  another order, or text after it, cannot be written again to the byte.
  """
  manifest = base.manifest
  for lane in range(manifest.lanes):
    last = np.array([-1, -1])
    for chunk in _lane_chunks(base, lane):
      rows_R2 = np.concatenate([last[None, :], _text_order(base, chunk)])
      key_R = rows_R2[:, 0].astype(np.int64) << 32 | rows_R2[:, 1] + 1
      if (np.diff(key_R) <= 0).any():
        raise errors.InputError(
          f"tokens_of={base.path}: its rows are not in the order of its text"
          f" (write chunk {chunk}), so no harvest can write the same ones; give"
          " a store that was harvested, or write the other model's activations"
          " as this one's were written"
        )
      last = rows_R2[-1]
    if manifest.rows < manifest.requested_rows or last[0] < 0:
      continue  # the text ended before the rows did
    batch = int(manifest.lane_batches[lane]) - 1
    start = manifest.document_slot(lane, batch) * manifest.batch_size
    if last[0] < start:
      raise errors.InputError(
        f"tokens_of={base.path}: it has text after its last row (document"
        f" {int(last[0])}), which no harvest keeps; give a store that was"
        " harvested, or leave those documents out"
      )
