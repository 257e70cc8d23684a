# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Store to shuffled, re-batched, sharded device batches (grain).

Reads the read chunks of a store; writes nothing. The data order is arithmetic
of (config, store geometry, number of batches taken): it depends neither on the
devices or processes, nor on buffers, nor on the version of grain.
"""

import dataclasses
import functools
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any

import grain
import jax
import ml_dtypes
import numpy as np
from grain import experimental as grain_experimental

from sae_jax import errors
from sae_jax.stream import order

_VERSION = 1
# On the devices besides the one in use: one is taken while one is copied.
_BATCHES_AHEAD = 2


def _rows_by_process(sharding, batch_size):
  rows = {}
  for device, index in sharding.devices_indices_map((batch_size,)).items():
    start, stop, _ = index[0].indices(batch_size)
    rows.setdefault(device.process_index, []).append((start, stop))
  return rows


class _Draws:
  """A grain source: the chunks of one lane's draws, from a draw on."""

  def __init__(self, plan, lane, start, store, hook, stop):
    self.plan = plan
    self._lane, self._store, self._hook, self._stop = lane, store, hook, stop
    self._round, self._draw, self._skip = start
    self._dealt = None, None

  def __len__(self) -> int:
    plan = self.plan
    if plan.block is None:
      return sys.maxsize
    return (
      sum(plan.draws(r) for r in range(self._round, plan.rounds)) - self._draw
    )

  def __getitem__(self, index: int):
    plan = self.plan
    draws = plan.draws(0)  # as in every round but a bounded store's last
    round_ = min(self._round + (self._draw + index) // draws, plan.rounds - 1)
    draw = self._draw + index - (round_ - self._round) * draws
    if self._dealt[0] != round_:
      self._dealt = round_, plan.lane_chunks(self._lane, round_)
    ids = self._dealt[1]
    draws = plan.draws(round_)
    ids = ids[draw * len(ids) // draws : (draw + 1) * len(ids) // draws]
    blocks = self._store.read_chunks(self._hook, ids.tolist())
    return blocks, (draw, round_, self._lane), self._skip if index == 0 else 0


def _mix(element, *, seed: int) -> np.ndarray:
  """Permutes the rows of a draw: one copy, straight from the chunks."""
  blocks, counter, skip = element
  n = sum(len(block) for block in blocks)
  to_N = order.permutation(n, (seed, order.ROW_ORDER), counter)
  # As integers: numpy holds the GIL while it moves bfloat16.
  rows_ND = np.empty((n, blocks[0].shape[1]), np.uint16)
  start = 0
  for block in blocks:
    rows_ND[to_N[start : start + len(block)]] = block.view(np.uint16)
    start += len(block)
  return rows_ND[skip:]


def _assemble(parts, *, lanes, sharding, batch_size) -> jax.Array:
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

  def __init__(self, plan, identity, batches, iterator, stop):
    self._plan = plan
    self._identity = identity
    self._batches = batches
    self._iterator = iterator
    self._sound = True
    self._stall_ms = 0.0
    # Runs at the latest before the interpreter ends: a daemon thread inside
    # XLA at that moment would abort the process.
    self._finalizer = weakref.finalize(self, _close, iterator, stop)

  def __iter__(self):
    return self

  def __next__(self) -> jax.Array:
    """The next batch, x_BD bf16.

    Raises:
      StopIteration: a bounded store is drained.
      RuntimeError: the stream is closed, or an earlier call has failed.
      Exception: whatever the reader raised, unchanged.
    """
    if not (self._sound and self._finalizer.alive):
      raise RuntimeError(
        "this stream is closed or has failed; open one from its last state"
      )
    # grain would go on behind a draw that failed, and so skip its rows.
    self._sound = False
    start = time.perf_counter()
    x_BD = next(self._iterator, None)
    self._stall_ms = (time.perf_counter() - start) * 1e3
    self._sound = True
    if x_BD is None:
      raise StopIteration
    self._batches += 1
    return x_BD

  def state(self) -> dict[str, Any]:
    """The position after the last returned batch, for JSON; O(1)."""
    return {**self._identity, "batches": self._batches}

  def stall_ms(self) -> float:
    """Milliseconds that the last `next` waited for data."""
    return self._stall_ms

  def releasable_chunk(self, state: Mapping[str, Any]) -> int:
    """The first write chunk that a run resumed from `state` still reads.

    Bounded stores: pass it to `store.release` once `state` is saved for good.
    It moves on once per block of half the window, and the harvest fills the
    next half only then: save a checkpoint whenever it has moved.
    """
    return self._plan.first_needed(state["batches"])

  def close(self):
    """Stops and joins the reading threads."""
    self._finalizer()


def _close(iterator, stop):
  stop.set()
  iterator.close()


def open_stream(
  store,
  hook: str,
  config: order.StreamConfig,
  *,
  mesh: jax.sharding.Mesh,
  chunks: range | None = None,
  start_state: Mapping[str, Any] | None = None,
) -> Stream:
  """Opens the stream of one hook's rows, endless over freshly shuffled epochs.

  Batches are x_BD bf16 with B = config.batch_size, split over `data` and
  replicated over the other axes. An epoch has each row once. The order does
  not depend on the hook: equal configs show equal rows of two hooks.

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
  plan = _plan(store, config, chunks, mesh)
  identity = _identity(plan, store.manifest)
  batches = 0 if start_state is None else _batches_of(start_state, identity)
  rows = jax.NamedSharding(mesh, jax.P("data"))
  lanes = order.lanes_by_process(
    _rows_by_process(rows, config.batch_size), config.batch_size, config.lanes
  )[jax.process_index()]
  stop = threading.Event()
  parts = [
    _lane_parts(
      _Draws(plan, lane, plan.locate(lane, batches), store, hook, stop)
    )
    for lane in lanes
  ]
  sharding = jax.NamedSharding(mesh, jax.P("data", None))
  ahead = grain_experimental.ThreadPrefetchIterDataset(
    grain_experimental.ZipIterDataset(parts, strict=False).map(
      functools.partial(
        _assemble,
        lanes=lanes,
        sharding=sharding,
        batch_size=config.batch_size,
      )
    ),
    prefetch_buffer_size=_BATCHES_AHEAD,
  )
  return Stream(plan, identity, batches, iter(ahead), stop)


def _lane_parts(draws: _Draws) -> grain.IterDataset:
  """A lane's part of every batch."""
  chunks = grain.MapDataset.source(draws).to_iter_dataset(
    grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  )
  # A thread reads the next draw while the next stage's mixes this one.
  # grain's own reader threads are not joined when it is closed; this one is.
  chunks = grain_experimental.ThreadPrefetchIterDataset(
    chunks, prefetch_buffer_size=1
  )
  config = draws.plan.config
  return grain_experimental.RebatchIterDataset(
    chunks.map(functools.partial(_mix, seed=config.seed)),
    config.lane_rows,
    drop_remainder=True,
  )


def _plan(store, config, chunks, mesh) -> order.Plan:
  every = range(store.num_chunks)
  chunks = every if chunks is None else chunks
  if not chunks or chunks.step != 1 or chunks[0] < 0 or chunks[-1] not in every:
    raise errors.InputError(
      f"chunks={chunks}: give consecutive read chunks of the store's"
      f" {store.num_chunks} ({store.rows} rows)"
    )
  if len(chunks) < config.lanes:
    raise errors.InputError(
      f"stream.lanes={config.lanes}, but there are only {len(chunks)} read"
      f" chunks of {store.read_rows} rows; harvest more rows or use fewer lanes"
    )
  data = mesh.shape["data"]
  if config.batch_size % data:
    raise errors.InputError(
      f"stream.batch_size={config.batch_size} is not a multiple of"
      f" mesh.data={data}; every device takes an equal part of it"
    )
  return order.Plan(config, chunks, store.read_rows, store.rows)


def _identity(plan: order.Plan, manifest) -> dict[str, Any]:
  """What a position means nothing without."""
  return {
    "version": _VERSION,
    **dataclasses.asdict(plan.config),
    "chunks": [plan.chunks.start, plan.chunks.stop],
    "read_rows": plan.read_rows,
    "rows": plan.chunk_rows(plan.chunks),
    # A bounded store has none before its harvest is done.
    "pairing": "" if manifest.window else manifest.pairing_hash,
  }


def _batches_of(state: Mapping[str, Any], identity: dict[str, Any]) -> int:
  for field, value in identity.items():
    if state.get(field) != value:
      raise errors.InputError(
        f"stream state: {field} is {state.get(field)!r} in the checkpoint, but"
        f" {value!r} here; resume with what the run was started with, or start"
        " a new run"
      )
  batches = state.get("batches")
  if not isinstance(batches, int) or batches < 0:
    raise errors.InputError(
      f"stream state: batches is {batches!r} in the checkpoint, not a number"
      " >= 0; resume from an older checkpoint"
    )
  return batches
