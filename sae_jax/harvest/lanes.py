# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows to write chunks: each lane fills its own, a thread writes them.

The device computes, the host filters and the disk writes at the same time; at
most one chunk waits to be written.
"""

import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import ml_dtypes
import numpy as np

from sae_jax import store
from sae_jax.harvest import rows as rows_lib
from sae_jax.store import draining, records

# (lane, first batch) -> that lane's batches, or their rows, from there on.
OpenBatches = Callable[[int, int], rows_lib.Batches]
OpenKept = Callable[[int, int], Iterator[rows_lib.Kept]]

_POLL_SECONDS = 0.2  # how often a full window is looked at again


@dataclasses.dataclass
class _Chunk:
  """Rows on their way into a write chunk."""

  parts: list[rows_lib.Kept] = dataclasses.field(default_factory=list)
  rows: int = 0
  first_batch: int = 0
  tokens: list[tuple[int, np.ndarray]] = dataclasses.field(default_factory=list)
  dropped: dict[str, int] = dataclasses.field(default_factory=dict)


class _Lane:
  """Takes rows of one lane's batches, across the borders of write chunks."""

  def __init__(
    self, manifest: store.Manifest, lane: int, record: records.Record, kept
  ):
    self._manifest, self.lane, self.record = manifest, lane, record
    self.exhausted = record.exhausted
    self._kept: Iterator[rows_lib.Kept] = kept
    self._batch = record.next_batch
    self._skip = record.skip
    self._rest: rows_lib.Kept | None = None  # the batch that is half taken

  def fill(self, size: int, check: Callable[[], None]) -> dict:
    """The rows of the next write chunk, as `StoreWriter.write_chunk` wants."""
    chunk = _Chunk(first_batch=self._batch)
    while chunk.rows < size and not self.exhausted:
      check()
      self._take(chunk, size)
    return {
      "x": _joined([p.x for p in chunk.parts]),
      "rows_R2": np.concatenate(
        [np.zeros((0, 2), np.int32), *(p.rows_R2 for p in chunk.parts)]
      ),
      "tokens": chunk.tokens,
      "first_batch": chunk.first_batch,
      "next_batch": self._batch,
      "skip": self._skip,
      "exhausted": self.exhausted,
      "dropped": chunk.dropped,
    }

  def _take(self, chunk: _Chunk, size: int) -> None:
    one = self._rest or next(self._kept, None)
    if one is None:
      self.exhausted = True
      return
    if self._rest is None and self._skip == 0:  # first touched in this chunk
      chunk.tokens.append((one.batch, one.tokens_BT))
      for reason, count in one.dropped.items():
        chunk.dropped[reason] = chunk.dropped.get(reason, 0) + count
    stop = min(len(one.rows_R2), self._skip + size - chunk.rows)
    span = slice(self._skip, stop)
    if stop > self._skip:
      slot = self._manifest.document_slot(self.lane, one.batch)
      first_document = [slot * self._manifest.batch_size, 0]
      chunk.parts.append(
        dataclasses.replace(
          one,
          rows_R2=one.rows_R2[span] + np.array([first_document], np.int32),
          x={hook: x_RD[span] for hook, x_RD in one.x.items()},
        )
      )
      chunk.rows += stop - self._skip
    if stop == len(one.rows_R2):
      self._batch, self._skip, self._rest = one.batch + 1, 0, None
    else:
      self._batch, self._skip, self._rest = one.batch, stop, one


def run(
  writer: store.StoreWriter,
  lanes: Sequence[int],
  open_kept: OpenKept,
  *,
  check: Callable[[], None] = lambda: None,
  progress: Callable[[int], None] = lambda rows: None,
) -> None:
  """Writes every write chunk of some lanes that is not written yet.

  Args:
    writer: of the store.
    lanes: the lanes of this process.
    open_kept: (lane, first batch) -> that lane's rows from there on.
    check: called before every batch; raises to stop.
    progress: called with the rows of these lanes that are durable.
  """
  manifest = writer.manifest
  states = {lane: writer.lane(lane) for lane in lanes}
  open_lanes = {
    lane: _Lane(manifest, lane, record, open_kept(lane, record.next_batch))
    for lane, record in states.items()
  }
  durable = sum(record.moments[0].rows for record in states.values())
  progress(durable)

  def write(lane: int, chunk: int, content: dict) -> int:
    states[lane] = writer.write_chunk(states[lane], chunk, **content)
    return len(content["rows_R2"])

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    waiting: concurrent.futures.Future[int] | None = None
    for chunk in range(manifest.write_chunks):
      lane = open_lanes.get(chunk % manifest.lanes)
      if lane is None or lane.exhausted or chunk <= lane.record.chunk:
        continue
      if manifest.window:
        if waiting is not None:
          durable, waiting = durable + waiting.result(), None
          progress(durable)
        _wait_for_room(writer, lane.lane, chunk, check)
      content = lane.fill(
        min(manifest.write_rows, manifest.rows - chunk * manifest.write_rows),
        check,
      )
      if waiting is not None:
        durable += waiting.result()
        progress(durable)
      waiting = pool.submit(write, lane.lane, chunk, content)
    if waiting is not None:
      progress(durable + waiting.result())


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Each hook's rows as one array; as integers, which releases the GIL."""
  return {
    hook: np.concatenate([part[hook].view(np.uint16) for part in parts]).view(
      ml_dtypes.bfloat16
    )
    for hook in (parts[0] if parts else ())
  }


def _wait_for_room(
  writer: store.StoreWriter, lane: int, chunk: int, check: Callable[[], None]
) -> None:
  """Deletes what was released until `chunk` is within the window."""
  manifest, place = writer.manifest, writer.place
  while True:
    first = draining.released(place)
    draining.delete_released(place, manifest, lane, first)
    if chunk < first + manifest.window:
      return
    check()
    time.sleep(_POLL_SECONDS)
