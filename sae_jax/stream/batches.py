# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Store to shuffled, re-batched, sharded device batches (grain).

Reads the read chunks of a store; writes nothing. The data order is arithmetic
of (config, store geometry, number of batches taken): it depends neither on the
devices or processes, nor on buffers, nor on the version of grain.
"""

import contextlib
import dataclasses
import functools
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import jax
from grain import experimental as grain_experimental

from sae_jax import errors
from sae_jax import store as store_lib
from sae_jax.stream import assemble, draws, order

_VERSION = 1
# On the devices besides the one in use: one is taken while one is copied.
_BATCHES_AHEAD = 2


class Stream:
  """An iterator of batches; see `open_stream`."""

  def __init__(
    self,
    plan: order.Plan,
    per_write: int,
    identity: dict[str, Any],
    batches: int,
    iterator: grain.DatasetIterator,
    spread: Callable[[assemble.Batch], assemble.Batch],
    stop: threading.Event,
  ):
    self._plan = plan
    self._per_write = per_write  # read chunks in a write chunk
    self._identity = identity
    self._batches = batches
    self._pipeline = [iterator]  # emptied by close
    self._spread = spread
    self._sound = True
    self._stall_ms = 0.0
    # Runs at the latest when the interpreter begins to end: a daemon thread
    # inside XLA would abort it, and grain's own __del__ fails later on.
    self._finalizer = weakref.finalize(self, _close, self._pipeline, stop)

  def __iter__(self) -> "Stream":
    return self

  def __next__(self) -> assemble.Batch:
    """The next batch, x_BD bf16, or a tuple of them, one of each hook.

    Raises:
      StopIteration: a bounded store is drained.
      RuntimeError: the stream is closed, or an earlier call has failed.
      Exception: whatever the reader raised, unchanged.
    """
    if not (self._sound and self._pipeline):
      raise RuntimeError(
        "this stream is closed or has failed; open one from its last state"
      )
    # grain would go on behind a draw that failed, and so skip its rows.
    self._sound = False
    start = time.perf_counter()
    batch = next(self._pipeline[0], None)
    self._stall_ms = (time.perf_counter() - start) * 1e3
    self._sound = True
    if batch is None:
      raise StopIteration
    self._batches += 1
    # Here, not in a thread: all processes have to begin the programs in which
    # they exchange something in the same order.
    return self._spread(batch)

  @property
  def batches(self) -> int:
    """How many were taken, in this process and before its state was saved."""
    return self._batches

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
    return self._plan.first_needed(state["batches"]) // self._per_write

  def close(self) -> None:
    """Stops and joins the reading threads."""
    self._finalizer()


def _close(
  pipeline: list[grain.DatasetIterator], stop: threading.Event
) -> None:
  stop.set()
  while pipeline:
    pipeline.pop().close()


def open_stream(
  store: store_lib.Store,
  hooks: str | Sequence[str],
  config: order.StreamConfig,
  *,
  mesh: jax.sharding.Mesh,
  chunks: range | None = None,
  start_state: Mapping[str, Any] | None = None,
) -> Stream:
  """Opens the stream of a store's rows, endless over freshly shuffled epochs.

  Batches are x_BD bf16 with B = config.batch_size, split over `data` and
  replicated over the other axes. Of several hooks they are tuples of x_BD, of
  the same rows. An epoch has each row once. Order and state do not depend on
  the hooks.

  Each device is given its own part of the rows, where B divides by the devices
  and the lanes by the processes, and they pass it on to one another. Otherwise
  a process reads, and copies to its devices, all rows of their data shards.

  A bounded store is read once, in blocks of half its window that are permuted
  one by one, and is waited for; see `Stream.releasable_chunk`.

  Args:
    store: an open store.
    hooks: a hook's name in the store, or the names of several.
    config: sizes and seed.
    mesh: the device mesh; a process reads only the lanes its devices need.
    chunks: the read chunks to use (see `store.holdout`); default: all.
    start_state: a `Stream.state()` to go on from, on any mesh.

  Raises:
    errors.InputError: a config that does not fit the store or the mesh, or a
      state of another stream.
  """
  single = isinstance(hooks, str)
  names = tuple(map(store.hook, (hooks,) if single else hooks))
  if not names:
    raise errors.InputError("hooks=(): name at least one hook of the store")
  plan = _plan(store, config, chunks)
  _check_fit(plan, mesh)
  identity = _identity(plan, store)
  batches = 0 if start_state is None else _batches_of(start_state, identity)
  sharding, lanes = _own_part(config, mesh)
  stop = threading.Event()
  parts = [
    _lane_parts(
      draws.Draws(plan, lane, plan.locate(lane, batches), store, names, stop)
    )
    for lane in lanes
  ]
  ahead = grain_experimental.ThreadPrefetchIterDataset(
    grain_experimental.ZipIterDataset(parts, strict=False).map(
      functools.partial(
        assemble.batch,
        single=single,
        lanes=lanes,
        sharding=sharding,
        batch_size=config.batch_size,
      )
    ),
    prefetch_buffer_size=_BATCHES_AHEAD,
  )
  per_write = store.write_rows // store.read_rows
  spread = assemble.spreader(sharding)
  return Stream(plan, per_write, identity, batches, iter(ahead), spread, stop)


def _own_part(
  config: order.StreamConfig, mesh: jax.sharding.Mesh
) -> tuple[jax.NamedSharding, tuple[int, ...]]:
  """How rows come onto the devices, and the lanes that this process reads.

  Raises:
    errors.InputError: the lanes do not divide over the data shards' processes.
  """

  def by(sharding):
    rows = assemble.rows_by_process(sharding, config.batch_size)
    lanes = order.lanes_by_process(rows, config.batch_size, config.lanes)
    return sharding, lanes[jax.process_index()]

  every = jax.NamedSharding(mesh, jax.P(assemble.EVERY_AXIS, None))
  if not config.batch_size % mesh.size:
    # Where a lane is of several processes' rows they all read all of it.
    with contextlib.suppress(errors.InputError):
      return by(every)
  return by(jax.NamedSharding(mesh, jax.P("data", None)))


def _lane_parts(source: draws.Draws) -> grain.IterDataset:
  """A lane's part of every batch."""
  chunks = grain.MapDataset.source(source).to_iter_dataset(
    grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  )
  # A thread reads the next draw while the next stage's mixes this one.
  # grain's own reader threads are not joined when it is closed; this one is.
  chunks = grain_experimental.ThreadPrefetchIterDataset(
    chunks, prefetch_buffer_size=1
  )
  config = source.plan.config
  return grain_experimental.RebatchIterDataset(
    chunks.map(functools.partial(draws.mix, seed=config.seed)),
    config.lane_rows,
    drop_remainder=True,
  )


def _plan(
  store: store_lib.Store, config: order.StreamConfig, chunks: range | None
) -> order.Plan:
  every = range(store.num_chunks)
  chunks = every if chunks is None else chunks
  if not chunks or chunks.step != 1 or chunks[0] < 0 or chunks[-1] not in every:
    raise errors.InputError(
      f"chunks={chunks}: give consecutive read chunks of the store's"
      f" {store.num_chunks} ({store.rows} rows)"
    )
  if not store.bounded:
    return order.Plan(config, chunks, store.read_rows, store.rows)
  if chunks != every:
    raise errors.InputError(
      f"chunks={chunks}: {store.path} is bounded and can only be read whole"
    )
  # What was asked for: a harvest that ends early must not change the order.
  rows = store.manifest.requested_rows
  block = store.window // 2 * (store.write_rows // store.read_rows)
  if not block or block % config.lanes:
    raise errors.InputError(
      f"stream.lanes={config.lanes} does not divide the {block} read chunks"
      f" ({store.read_rows} rows) of half the window ({store.window} write"
      f" chunks of {store.write_rows} rows) of {store.path}; choose lanes that"
      " do, or harvest with an even window >= 2"
    )
  # The last block may be short, but no lane of it empty.
  chunks = range(-(-rows // store.read_rows))
  tail = len(chunks) % block
  chunks = chunks[: len(chunks) - tail] if tail < config.lanes else chunks
  return order.Plan(config, chunks, store.read_rows, rows, block)


def _check_fit(plan: order.Plan, mesh: jax.sharding.Mesh) -> None:
  lanes, batch = plan.config.lanes, plan.config.batch_size
  if len(plan.chunks) < lanes:
    raise errors.InputError(
      f"stream.lanes={lanes}, but there are only {len(plan.chunks)} read"
      f" chunks of {plan.read_rows} rows; harvest more rows or use fewer lanes"
    )
  if batch % mesh.shape["data"]:
    raise errors.InputError(
      f"stream.batch_size={batch} is not a multiple of"
      f" mesh.data={mesh.shape['data']}; every device takes an equal part of it"
    )


def _identity(plan: order.Plan, store: store_lib.Store) -> dict[str, Any]:
  """What a position means nothing without."""
  return {
    "version": _VERSION,
    **dataclasses.asdict(plan.config),
    "chunks": [plan.chunks.start, plan.chunks.stop],
    "read_rows": plan.read_rows,
    "rows": plan.chunk_rows(plan.chunks),
    "block": plan.block,
    "store": store.identity,
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
