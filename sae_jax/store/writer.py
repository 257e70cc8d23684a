# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes a store write chunk by write chunk, so that a kill loses only one.

Every write chunk, token chunk and record has one writer: lane l owns the write
chunks c = l (mod lanes). A chunk's arrays are durable before its record is
written, and the manifest is written last.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np

from sae_jax import errors
from sae_jax.store import draining, layout, location, records, statistics


class StoreWriter:
  """Creates or goes on with the store at `path`.

  Only the `lead` process creates arrays and finishes the store; the others
  open what the lead has created.

  Raises:
    errors.InputError: the directory cannot be written, or (not lead) the lead
      has not created it.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    manifest: layout.Manifest,
    *,
    lead: bool = True,
  ):
    self.place = location.Location(path)
    self.manifest = manifest
    names = layout.array_names(manifest)
    create = lead and self.place.read(layout.START) is None
    if create:  # what a harvest left that was killed right here
      self.place.delete(f"{name}/zarr.json" for name in names)
    self._arrays = {
      name: layout.open_array(self.place, manifest, name, create=create)
      for name in names
    }
    if create:
      self.place.write(layout.START, layout.manifest_bytes(manifest))

  @classmethod
  def resume(
    cls, path: str | os.PathLike[str], *, lead: bool = True
  ) -> "StoreWriter | None":
    """The writer of the unfinished store at `path`; None if there is none."""
    place = location.Location(path)
    data = place.read(layout.START)
    if data is None:
      return None
    where = f"{place.path}/{layout.START}"
    return cls(path, layout.parse_manifest(data, where), lead=lead)

  def lane(self, lane: int) -> records.Record:
    """The lane's last record, or its start."""
    last = records.start(list(self.manifest.hooks.values()))
    mine = [
      chunk
      for chunk in records.recorded(self.place)
      if chunk % self.manifest.lanes == lane
    ]
    if mine:
      found = records.read(self.place, mine[-1], len(self.manifest.hooks))
      last = found or last
    return last

  def write_chunk(
    self,
    before: records.Record,
    chunk: int,
    x: Mapping[str, np.ndarray],
    rows_R2: np.ndarray,
    *,
    tokens: Sequence[tuple[int, np.ndarray]],
    first_batch: int,
    next_batch: int,
    skip: int,
    exhausted: bool,
    dropped: Mapping[str, int],
  ) -> records.Record:
    """Permutes and writes one chunk; returns when it is durable.

    Args:
      before: the lane's record before this chunk.
      chunk: the write chunk.
      x: hook -> x_RD bfloat16, in text order; R <= write_rows. May be empty
        if R = 0.
      rows_R2: (document, position) of every row.
      tokens: (lane's batch, tokens_BT int32 with -1 where there is none) of
        the batches first touched in this chunk, ascending.
      first_batch: the lane's batch in which the chunk begins.
      next_batch: the lane's batch to go on with.
      skip: how many kept rows of that batch are written already.
      exhausted: whether the text ended here.
      dropped: tokens left out of the batches in `tokens`, by reason.
    """
    order_R = permutation(self.manifest.seed, chunk, len(rows_R2))
    rows_R2 = np.ascontiguousarray(rows_R2[order_R], np.int32)
    start = chunk * self.manifest.write_rows
    stop = start + len(rows_R2)
    futures, moments = [], []
    try:
      if start < stop:
        futures.append(self._arrays[layout.ROWS][start:stop].write(rows_R2))
        for hook in self.manifest.hooks:
          # As integers: numpy moves bfloat16 with the GIL held.
          x_RD = x[hook].view(np.uint16)[order_R].view(ml_dtypes.bfloat16)
          array = self._arrays[layout.activations(hook)]
          futures.append(array[start:stop].write(x_RD))
          moments.append(statistics.moments(x_RD))
      self._write_tokens(chunk % self.manifest.lanes, tokens)
      for future in futures:
        future.result()
    except (ValueError, OSError) as error:
      if isinstance(error, errors.InputError):
        raise
      raise self.place.explain(error, f"cannot write chunk {chunk}") from error
    tokens_hash = before.tokens_hash
    for _, tokens_BT in tokens:
      tokens_hash = records.chain(tokens_hash, tokens_BT)
    record = records.Record(
      chunk=chunk,
      rows=len(rows_R2),
      first_batch=first_batch,
      next_batch=next_batch,
      skip=skip,
      exhausted=exhausted,
      dropped={
        reason: before.dropped.get(reason, 0) + dropped.get(reason, 0)
        for reason in sorted({*before.dropped, *dropped})
      },
      # A chunk without rows is no part of the store; verify cannot see it.
      rows_hash=records.chain(before.rows_hash, rows_R2)
      if len(rows_R2)
      else before.rows_hash,
      tokens_hash=tokens_hash,
      moments=tuple(a + b for a, b in zip(before.moments, moments, strict=True))
      if len(rows_R2)
      else before.moments,
    )
    records.write(self.place, record)
    return record

  def finish(self) -> layout.Manifest:
    """Seals the store; every lane must have ended. `clean` comes next.

    Rows are kept up to the first chunk that is not full: with several lanes
    and a text that ends early, later chunks of other lanes are deleted.

    Raises:
      errors.InputError: there are no rows.
    """
    lanes = self.manifest.lanes
    first = draining.released(self.place)
    first_batches = tuple(
      draining.delete_released(self.place, self.manifest, lane, first)
      for lane in range(lanes)
    )
    kept, rows = self._kept(first)
    if not rows:
      raise errors.InputError(
        f"{self.place.path}: no rows to store: the text gave no token that the"
        " filters keep; give more text, or relax the filters"
      )
    manifest = dataclasses.replace(
      self.manifest,
      rows=rows,
      lane_batches=tuple(r.batches for r in kept),
      first_chunk=first,
      lane_first_batches=first_batches,
      dropped=_dropped(kept),
      pairing_hash=records.pairing_hash(
        [r.rows_hash for r in kept], [r.tokens_hash for r in kept]
      ),
    )
    self._shrink(manifest)
    stats = {}
    for i, hook in enumerate(manifest.hooks):
      total = kept[0].moments[i]
      for lane in range(1, lanes):
        total += kept[lane].moments[i]
      stats[hook] = statistics.finish(total, manifest.dropped)
    self.place.write(layout.STATS, statistics.to_bytes(stats))
    small = [f"{a}/zarr.json" for a in layout.array_names(manifest)]
    manifest = dataclasses.replace(
      manifest,
      files={
        name: layout.digest(self.place.read(name) or b"")
        for name in [*small, layout.STATS]
      },
    )
    self.place.write(layout.MANIFEST, layout.manifest_bytes(manifest))
    return manifest

  def _kept(self, first: int) -> tuple[list[records.Record], int]:
    """Each lane's last kept record, and the rows up to the last kept one."""
    lanes, write_rows = self.manifest.lanes, self.manifest.write_rows
    hooks = list(self.manifest.hooks.values())
    recorded = records.recorded(self.place)
    # A released chunk was whole; of the last one the record is still there.
    chunk = first - (first - 1 in recorded)
    rows, count = chunk * write_rows, write_rows
    while count == write_rows and chunk in recorded:
      record = records.read(self.place, chunk, len(hooks))
      count = record.rows if record else 0
      rows += count
      chunk += 1
    kept = []
    for lane in range(lanes):
      mine = [c for c in recorded if c % lanes == lane and c < chunk]
      last = records.read(self.place, mine[-1], len(hooks)) if mine else None
      kept.append(last or records.start(hooks))
    return kept, rows

  def _shrink(self, manifest: layout.Manifest) -> None:
    """Cuts the arrays to what is kept."""
    short = manifest.rows < self.manifest.rows
    for name in layout.array_names(manifest):
      array, size = self._arrays[name], manifest.rows
      files = layout.chunk_files(manifest, name)
      if name == layout.TOKENS:
        size = manifest.documents
      if short:
        written = self.place.names(f"{name}/c/")
        self.place.delete(file for file in written if file not in files)
      # Metadata only: TensorStore would otherwise visit every chunk that the
      # array might have had.
      array.resize(
        exclusive_max=[size, array.shape[1]], resize_metadata_only=True
      ).result()

  def _write_tokens(
    self, lane: int, tokens: Sequence[tuple[int, np.ndarray]]
  ) -> None:
    """Writes runs of batches; batches of one token chunk are one write."""
    array, per_slot = self._arrays[layout.TOKENS], self.manifest.batch_size
    runs: dict[int, list[tuple[int, np.ndarray]]] = {}
    for batch, tokens_BT in tokens:
      slot = self.manifest.document_slot(lane, batch)
      runs.setdefault(slot // self.manifest.group_batches, []).append(
        (slot, tokens_BT)
      )
    futures = []
    for run in runs.values():
      first = run[0][0] * per_slot
      tokens_NT = np.concatenate([t for _, t in run])
      futures.append(array[first : first + len(tokens_NT)].write(tokens_NT))
    for future in futures:
      future.result()


def permutation(seed: int, chunk: int, rows: int) -> np.ndarray:
  """The order in which a write chunk's rows are stored.

  Philox's raw words are the same in every version of numpy (NEP 19).
  """
  words_R = np.random.Philox(key=(seed, chunk)).random_raw(rows)
  return np.argsort(words_R, kind="stable")


def clean(place: location.Location) -> None:
  """Removes what only an unfinished store needs, and killed writers' files."""
  place.delete(place.names("progress/"))
  place.delete([layout.RELEASED])
  place.sweep()


def _dropped(last: Sequence[records.Record]) -> dict[str, int]:
  reasons = sorted({reason for r in last for reason in r.dropped})
  return {
    reason: sum(r.dropped.get(reason, 0) for r in last) for reason in reasons
  }
