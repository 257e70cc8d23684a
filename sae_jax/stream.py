# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Store to shuffled, re-batched, sharded device batches (grain).

Reads the read chunks of a store; writes nothing. The data order is arithmetic
of (config, store geometry, number of batches taken): it depends neither on the
devices or processes, nor on buffers, nor on the version of grain.
"""

import dataclasses
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import grain
import jax
import ml_dtypes
import numpy as np
from grain import experimental as grain_experimental

from sae_jax import errors

_VERSION = 1
# First word of the counter-based generator's key, next to the seed.
_CHUNK_ORDER, _ROW_ORDER = 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
  """How rows are mixed; all four are part of the data order."""

  batch_size: int  # rows of a global batch
  # Read chunks that are permuted together, a draw. A process holds about four
  # draws per lane in memory: more mixes better and costs memory.
  mix_chunks: int = 64
  # Equal parts of a batch, each with its own share of the chunks. Processes
  # can divide the batch only between lanes, so choose a multiple of the
  # largest number of processes that a run may ever have; 1 for one process.
  lanes: int = 1
  seed: int = 0

  def __post_init__(self):
    for name in ("batch_size", "mix_chunks", "lanes"):
      if getattr(self, name) < 1:
        raise errors.InputError(
          f"stream.{name}={getattr(self, name)}: give a number >= 1"
        )
    if not 0 <= self.seed < 2**64:
      raise errors.InputError(
        f"stream.seed={self.seed}: give a number from 0 to 2**64 - 1"
      )
    if self.batch_size % self.lanes:
      raise errors.InputError(
        f"stream.batch_size={self.batch_size} is not a multiple of"
        f" stream.lanes={self.lanes}; every lane fills an equal part of it"
      )


def permutation(n: int, key: tuple[int, int], counter: tuple[int, ...]):
  """A uniformly random order of 0 … n-1 from Philox's raw words.

  Numpy promises the words for all time (NEP 19), but not what its
  `Generator.permutation` makes of them. The index sits in a word's low bits:
  keys are unique, so any sort gives the same order.
  """
  words_N = np.random.Philox(key=key, counter=(0, *counter)).random_raw(n)
  low = np.uint64((1 << n.bit_length()) - 1)
  words_N = (words_N & ~low) | np.arange(n, dtype=np.uint64)
  words_N.sort()
  return (words_N & low).astype(np.intp)


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Which chunks each lane reads in which round and draw.

  A round is an epoch (or a block of a bounded store). Its chunks are permuted
  and dealt to the lanes like cards; the lane that begins moves on by one each
  round, so that in `lanes` rounds every lane is dealt as many rows as there
  are. A short last chunk is dealt last, which keeps positions closed-form.
  """

  config: StreamConfig
  chunks: range
  read_rows: int
  rows: int  # of the store
  block: int | None = None  # chunks per round of a bounded store, read once

  @property
  def rounds(self) -> int:
    return (
      sys.maxsize if self.block is None else -(-len(self.chunks) // self.block)
    )

  def round_chunks(self, round_: int) -> range:
    if self.block is None:
      return self.chunks
    return self.chunks[round_ * self.block : (round_ + 1) * self.block]

  def chunk_rows(self, chunks: range) -> int:
    """Rows of consecutive chunks."""
    stop = min(chunks.stop * self.read_rows, self.rows)
    return max(0, stop - chunks.start * self.read_rows)

  def _first(self, lane: int, round_: int) -> int:
    return (lane - round_) % self.config.lanes

  def lane_count(self, lane: int, round_: int) -> int:
    """Chunks that a lane is dealt in a round."""
    chunks = self.round_chunks(round_)
    return len(chunks[self._first(lane, round_) :: self.config.lanes])

  def lane_rows(self, lane: int, round_: int) -> int:
    """Rows that a lane is dealt in a round."""
    chunks = self.round_chunks(round_)
    dealt = chunks[self._first(lane, round_) :: self.config.lanes]
    missing = len(chunks) * self.read_rows - self.chunk_rows(chunks)
    has_last = len(dealt) > 0 and dealt[-1] == chunks[-1]
    return len(dealt) * self.read_rows - missing * has_last

  def lane_chunks(self, lane: int, round_: int) -> np.ndarray:
    """The chunk numbers that a lane reads in a round, in order."""
    chunks = self.round_chunks(round_)
    whole = self.chunk_rows(chunks) // self.read_rows
    order = permutation(whole, (self.config.seed, _CHUNK_ORDER), (0, round_, 0))
    order = np.append(order, np.arange(whole, len(chunks)))
    return chunks.start + order[self._first(lane, round_) :: self.config.lanes]

  def draws(self, round_: int) -> int:
    """Draws per lane in a round: as many for every lane."""
    dealt = len(self.round_chunks(round_)) // self.config.lanes
    return -(-dealt // self.config.mix_chunks)

  def locate(self, lane: int, row: int) -> tuple[int, int, int]:
    """(round, draw, row in the draw) of a lane's `row`-th row since the start."""
    span = self.chunk_rows(self.round_chunks(0))
    round_ = self.config.lanes * (row // span)
    row %= span
    while round_ < self.rounds:
      rows = self.lane_rows(lane, round_)
      if row < rows:
        break
      row -= rows
      round_ += 1
    else:
      return self.rounds, 0, 0
    draws, count = self.draws(round_), self.lane_count(lane, round_)
    # Draw d begins at chunk d·count // draws; this is the last one that
    # begins at or before the row's chunk.
    draw = ((row // self.read_rows + 1) * draws - 1) // count
    return round_, draw, row - draw * count // draws * self.read_rows


def lanes_by_process(
  rows_by_process: Mapping[int, Iterable[tuple[int, int]]],
  batch_size: int,
  lanes: int,
) -> dict[int, tuple[int, ...]]:
  """Which lanes each process reads, from the batch rows its devices hold.

  Every process checks all of them, so that all fail together.

  Raises:
    errors.InputError: a process holds a part of a lane.
  """
  lane_rows = batch_size // lanes
  owned = {}
  for process, ranges in rows_by_process.items():
    held = {row for start, stop in set(ranges) for row in range(start, stop)}
    owned[process] = tuple(sorted({row // lane_rows for row in held}))
    if len(held) != len(owned[process]) * lane_rows:
      raise errors.InputError(
        f"stream.lanes={lanes} cannot be divided among"
        f" {len(rows_by_process)} processes: process {process} holds"
        f" {len(held)} of the {batch_size} rows of a batch and a lane has"
        f" {lane_rows}; set stream.lanes to a multiple of the processes along"
        " the data axis (it is part of the data order: choose it for the whole"
        " run)"
      )
  return owned


def _rows_by_process(sharding, batch_size):
  rows = {}
  for device, index in sharding.devices_indices_map((batch_size,)).items():
    start, stop, _ = index[0].indices(batch_size)
    rows.setdefault(device.process_index, []).append((start, stop))
  return rows


class _Draws:
  """A grain source: the chunks of one lane's draws, from a draw on."""

  def __init__(self, plan, lane, start, store, hook):
    self._plan, self._lane, self._store, self._hook = plan, lane, store, hook
    self._round, self._draw, self._skip = start
    self._order = None, None

  def __len__(self) -> int:
    plan = self._plan
    if plan.block is None:
      return sys.maxsize
    return (
      sum(plan.draws(r) for r in range(self._round, plan.rounds)) - self._draw
    )

  def __getitem__(self, index: int):
    plan = self._plan
    draws = plan.draws(0)  # as in every round but a bounded store's last
    round_ = min(self._round + (self._draw + index) // draws, plan.rounds - 1)
    draw = self._draw + index - (round_ - self._round) * draws
    if self._order[0] != round_:
      self._order = round_, plan.lane_chunks(self._lane, round_)
    order = self._order[1]
    draws = plan.draws(round_)
    ids = order[
      draw * len(order) // draws : (draw + 1) * len(order) // draws
    ].tolist()
    blocks = self._store.read_chunks(self._hook, ids)
    return blocks, (draw, round_, self._lane), self._skip if index == 0 else 0


def _mix(seed: int, element) -> np.ndarray:
  """Permutes the rows of a draw: one copy, straight from the chunks."""
  blocks, counter, skip = element
  n = sum(len(block) for block in blocks)
  to_N = permutation(n, (seed, _ROW_ORDER), counter)
  # As integers: numpy holds the GIL while it moves bfloat16.
  rows_ND = np.empty((n, blocks[0].shape[1]), np.uint16)
  start = 0
  for block in blocks:
    rows_ND[to_N[start : start + len(block)]] = block.view(np.uint16)
    start += len(block)
  return rows_ND[skip:]


def _assemble(parts, lanes, sharding, batch_size) -> jax.Array:
  """Lane parts of this process to a global array, without a joined copy."""
  lane_rows, width = parts[0].shape
  part_of = dict(zip(lanes, parts, strict=True))

  def rows(index):
    start, stop, _ = index[0].indices(batch_size)
    pieces = [
      part_of[lane][max(start - lane * lane_rows, 0) : stop - lane * lane_rows]
      for lane in range(start // lane_rows, -(-stop // lane_rows))
    ]
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return joined.view(ml_dtypes.bfloat16)

  return jax.make_array_from_callback((batch_size, width), sharding, rows)


class Stream:
  """An iterator of batches `x_BD`; see `open_stream`."""

  def __init__(self, plan, identity, batches, iterator):
    self._plan = plan
    self._identity = identity
    self._batches = batches
    self._iterator = iterator
    self._stall_ms = 0.0
    self._error = None
    # Runs at the latest before the interpreter ends: a daemon thread inside
    # XLA at that moment would abort the process.
    self._finalizer = weakref.finalize(self, iterator.close)

  def __iter__(self):
    return self

  def __next__(self) -> jax.Array:
    """The next batch, x_BD bf16.

    Raises:
      StopIteration: a bounded store is drained.
      Exception: whatever the reader raised, again at every further call.
    """
    if self._error is not None:
      raise self._error
    start = time.perf_counter()
    try:
      x_BD = next(self._iterator)
    except Exception as error:
      # grain would go on with the next draw and so skip rows.
      self._error = error
      raise
    self._stall_ms = (time.perf_counter() - start) * 1e3
    self._batches += 1
    return x_BD

  def state(self) -> dict[str, Any]:
    """The position after the last returned batch, for JSON; O(1)."""
    return {**self._identity, "batches": self._batches}

  def stall_ms(self) -> float:
    """Milliseconds that the last `next` waited for data."""
    return self._stall_ms

  def close(self):
    """Stops and joins the reading threads."""
    self._finalizer()


def open_stream(
  store,
  hook: str,
  config: StreamConfig,
  *,
  mesh: jax.sharding.Mesh,
  chunks: range | None = None,
  start_state: Mapping[str, Any] | None = None,
) -> Stream:
  """Opens the stream of one hook's rows, endless over freshly shuffled epochs.

  Batches are x_BD bf16 with B = config.batch_size, split over `data`. Each
  lane's epoch has each of its rows once. The order does not depend on the
  hook, so the streams of two hooks with one config show the same rows.

  Args:
    store: an open store.
    hook: the hook's name in the store.
    config: sizes and seed.
    mesh: the device mesh; a process reads only the lanes its devices need.
    chunks: the read chunks to use (see `store.holdout`); default: all.
    start_state: a `Stream.state()` to go on from, on any mesh.

  Raises:
    errors.InputError: a config that does not fit the store or the mesh, or a
      state of another stream.
  """
  chunks = range(store.num_chunks) if chunks is None else chunks
  plan = _Plan(config, chunks, store.read_rows, store.rows)
  if len(chunks) < config.lanes:
    raise errors.InputError(
      f"stream.lanes={config.lanes}, but only {len(chunks)} read chunks are to"
      f" be read ({plan.chunk_rows(chunks)} rows); harvest more rows or use"
      " fewer lanes"
    )
  data = mesh.shape["data"]
  if config.batch_size % data:
    raise errors.InputError(
      f"stream.batch_size={config.batch_size} is not a multiple of"
      f" mesh.data={data}"
    )
  identity = _identity(plan, store)
  batches = 0 if start_state is None else _checked(start_state, identity)
  sharding = jax.NamedSharding(mesh, jax.P("data", None))
  lanes = lanes_by_process(
    _rows_by_process(jax.NamedSharding(mesh, jax.P("data")), config.batch_size),
    config.batch_size,
    config.lanes,
  )[jax.process_index()]
  lane_rows = config.batch_size // config.lanes
  parts = []
  for lane in lanes:
    start = plan.locate(lane, batches * lane_rows)
    source = _Draws(plan, lane, start, store, hook)
    draws = grain.MapDataset.source(source).to_iter_dataset(
      grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    )
    # One thread reads the next draw while another mixes this one.
    draws = grain_experimental.ThreadPrefetchIterDataset(
      draws, prefetch_buffer_size=1
    ).map(lambda element: _mix(config.seed, element))
    parts.append(
      grain_experimental.RebatchIterDataset(
        draws, lane_rows, drop_remainder=True
      )
    )
  batches_ds = grain_experimental.ZipIterDataset(parts, strict=False).map(
    lambda parts: _assemble(parts, lanes, sharding, config.batch_size)
  )
  # Two batches wait on the devices: one may be fetched while one is stepped.
  batches_ds = grain_experimental.ThreadPrefetchIterDataset(
    batches_ds, prefetch_buffer_size=2
  )
  return Stream(plan, identity, batches, iter(batches_ds))


def _identity(plan: _Plan, store) -> dict[str, Any]:
  return {
    "version": _VERSION,
    **dataclasses.asdict(plan.config),
    "first_chunk": plan.chunks.start,
    "last_chunk": plan.chunks.stop - 1,
    "read_rows": plan.read_rows,
    "rows": plan.chunk_rows(plan.chunks),
  }


def _checked(state: Mapping[str, Any], identity: dict[str, Any]) -> int:
  """The batches of a state that belongs to this stream."""
  for field, value in identity.items():
    if field not in state or state[field] != value:
      raise errors.InputError(
        f"stream state: {field} is {state.get(field)!r} in the checkpoint, but"
        f" {value!r} here; resume with what the run was started with, or start"
        " a new run"
      )
  batches = state.get("batches")
  if not isinstance(batches, int) or batches < 0:
    raise errors.InputError(
      f"stream state: batches is {batches!r}, not a number >= 0; the"
      " checkpoint's stream state is damaged"
    )
  return batches
