# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Store to shuffled, re-batched, sharded device batches (grain).

Reads the read chunks of a store; writes nothing. The data order is arithmetic
of (config, store geometry, number of batches taken): it depends neither on the
devices or processes, nor on buffers, nor on the version of grain.
"""

import dataclasses
import sys
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
    self._dealt = None, None

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
    if self._dealt[0] != round_:
      self._dealt = round_, plan.lane_chunks(self._lane, round_)
    ids = self._dealt[1]
    draws = plan.draws(round_)
    ids = ids[draw * len(ids) // draws : (draw + 1) * len(ids) // draws]
    blocks = self._store.read_chunks(self._hook, ids.tolist())
    return blocks, (draw, round_, self._lane), self._skip if index == 0 else 0


def _mix(seed: int, element) -> np.ndarray:
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
  config: order.StreamConfig,
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
  plan = order.Plan(config, chunks, store.read_rows, store.rows)
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
  lanes = order.lanes_by_process(
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


def _identity(plan: order.Plan, store) -> dict[str, Any]:
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
