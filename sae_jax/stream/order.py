# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The data order as arithmetic: pure functions of numbers, no input or output.

Rows of a lane are numbered since the start of the run; every number stands for
one round, draw and row of the store, whatever devices or processes there are.
"""

import dataclasses
import sys
from collections.abc import Iterable, Mapping

import numpy as np

from sae_jax import errors

# Second word of the generator's key, next to the seed.
CHUNK_ORDER, ROW_ORDER = 0, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamConfig:
  """How rows are mixed; all four are part of the data order."""

  batch_size: int  # rows of a global batch
  # Read chunks that are permuted together, a draw. A process holds up to five
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

  @property
  def lane_rows(self) -> int:
    """A lane's rows in a batch."""
    return self.batch_size // self.lanes


def permutation(
  n: int, key: tuple[int, int], counter: tuple[int, ...]
) -> np.ndarray:
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
class Plan:
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
    order = permutation(whole, (self.config.seed, CHUNK_ORDER), (0, round_, 0))
    order = np.append(order, np.arange(whole, len(chunks)))
    return chunks.start + order[self._first(lane, round_) :: self.config.lanes]

  def draws(self, round_: int) -> int:
    """Draws per lane in a round: as many for every lane."""
    dealt = len(self.round_chunks(round_)) // self.config.lanes
    return -(-dealt // self.config.mix_chunks)

  def draw_after(self, round_: int, draw: int, n: int) -> tuple[int, int]:
    """(round, draw) `n` draws after another."""
    per_round = self.draws(0)  # as in every round but a bounded store's last
    later = min(round_ + (draw + n) // per_round, self.rounds - 1)
    return later, draw + n - (later - round_) * per_round

  def locate(self, lane: int, batches: int) -> tuple[int, int, int]:
    """(round, draw, row in the draw) of a lane after so many batches."""
    row = batches * self.config.lane_rows
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

  def first_needed(self, batches: int) -> int:
    """The first chunk still to be read, by any lane, after so many batches."""
    round_ = min(
      self.locate(lane, batches)[0] for lane in range(self.config.lanes)
    )
    if self.block is None:
      return self.chunks.start
    return min(self.chunks.start + round_ * self.block, self.chunks.stop)


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
    # Ranges of a sharding are equal (replicas) or apart.
    ranges = sorted(set(ranges))
    held = sum(stop - start for start, stop in ranges)
    touched = {
      lane
      for start, stop in ranges
      for lane in range(start // lane_rows, -(-stop // lane_rows))
    }
    if held != len(touched) * lane_rows:
      raise errors.InputError(
        f"stream.lanes={lanes} cannot be divided among"
        f" {len(rows_by_process)} processes: process {process} holds {held} of"
        f" the {batch_size} rows of a batch, and a lane has {lane_rows}; set"
        " stream.lanes to a multiple of the processes along the data axis (it"
        " is part of the data order: choose it once for the whole run)"
      )
    owned[process] = tuple(sorted(touched))
  return owned
