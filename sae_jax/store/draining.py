# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A store of which only a window is on disk: filled, drained, watched.

The reader writes `released.json`, the harvest deletes what was released. Each
harvesting process beats: a small file that changes every few seconds. A beat
that stands still, by the watcher's own clock, means that the process is dead.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

from sae_jax import errors
from sae_jax.store import layout, location, records, waiting

_BEAT_SECONDS = 2.0
_POLL_SECONDS = 0.05  # at first; up to ten times that while nothing happens
_CHECK_SECONDS = 1.0
# Several beats, so that a slow object store is not taken for a dead process.
STALL_SECONDS = 30.0
_BEATS = "progress/process-"


def released(place: location.Location) -> int:
  """The first write chunk that the reader still needs."""
  data = place.read(layout.RELEASED)
  if data is None:
    return 0
  where = f"{place.path}/{layout.RELEASED}"
  return int(layout.unseal(data, where)["first_chunk"])


def release(place: location.Location, first_chunk: int) -> None:
  """Lets the harvest delete all write chunks before `first_chunk`."""
  if first_chunk > released(place):
    place.write(layout.RELEASED, layout.seal({"first_chunk": first_chunk}))


def delete_released(
  place: location.Location, manifest: layout.Manifest, lane: int, first: int
) -> int:
  """Deletes what a lane wrote in write chunks before `first`.

  The lane's last record stays: the lane goes on from it.

  Returns:
    The lane's first batch whose tokens are still there.
  """
  mine = [c for c in records.recorded(place) if c % manifest.lanes == lane]
  kept_group = 0
  for chunk in [c for c in mine if c < first]:
    record = records.read(place, chunk, len(manifest.hooks))
    if record is None:
      continue
    arrays = [*map(layout.activations, manifest.hooks), layout.ROWS]
    place.delete(layout.chunk_file(array, chunk) for array in arrays)
    kept_group = record.next_batch // manifest.group_batches
    place.delete(
      layout.chunk_file(layout.TOKENS, group * manifest.lanes + lane)
      for group in range(
        record.first_batch // manifest.group_batches, kept_group
      )
    )
    if chunk != mine[-1]:
      place.delete([layout.record_file(chunk)])
  left = [c for c in mine if c >= first]
  if left:
    record = records.read(place, left[0], len(manifest.hooks))
    if record is not None:
      kept_group = record.first_batch // manifest.group_batches
  return kept_group * manifest.group_batches


def forget_processes(place: location.Location, processes: int) -> None:
  """Deletes beats of an earlier run that had more processes."""
  names = place.names(_BEATS)
  place.delete(name for name in names if name >= _beat_file(processes))


class Heartbeat:
  """Beats from a thread while this process harvests; a context manager.

  After an error the last beat says so; else it goes: nobody waits any more.
  """

  def __init__(self, place: location.Location, process: int):
    self._place = place
    self._file = _beat_file(process)
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)

  def __enter__(self) -> Self:
    self._beat("running", 0)
    self._thread.start()
    return self

  def __exit__(self, kind, error, trace) -> None:
    self._stop.set()
    self._thread.join()
    with contextlib.suppress(errors.InputError, OSError):  # the disk is full
      if error is None or self._place.read(layout.START) is None:
        self._place.delete([self._file])
      else:
        self._beat(f"stopped: {str(error) or kind.__name__}", -1)

  def _run(self) -> None:
    beat = 0
    while not self._stop.wait(_BEAT_SECONDS):
      beat += 1
      # A beat that cannot be written is a missed one; the arrays' writer meets
      # the same trouble and reports it.
      try:
        self._beat("running", beat)
      except (errors.InputError, OSError):
        continue

  def _beat(self, state: str, beat: int) -> None:
    value = {"state": state, "beat": beat, "started": time.time()}
    self._place.write(self._file, json.dumps(value).encode())


class Watch:
  """Notices when harvesting processes (one of them, or any) have died."""

  def __init__(
    self,
    place: location.Location,
    stall_seconds: float = STALL_SECONDS,
    process: int | None = None,
  ):
    self._place, self._stall = place, stall_seconds
    self._prefix = _BEATS if process is None else _beat_file(process)
    self._seen: dict[str, tuple[bytes, float]] = {}
    self._alive = time.monotonic()
    self._checked = 0.0

  def check(self, waiting_for: str) -> None:
    """Raises errors.InputError if what is watched is not at work."""
    now = time.monotonic()
    if now - self._checked < _CHECK_SECONDS:
      return
    self._checked = now
    names = self._place.names(self._prefix)
    if names:
      self._alive = now
    elif now - self._alive > self._stall:
      raise self._dead(waiting_for, "no harvest is at work there")
    for name in names:
      data = self._place.read(name)
      if data is None:
        continue
      seen = self._seen.get(name)
      if seen is None or seen[0] != data:
        self._seen[name] = data, now
        continue
      state = json.loads(data)["state"]
      # A process that stopped may be started again at once; wait a few beats.
      patience = self._stall
      if state != "running":
        patience = min(self._stall, 3 * _BEAT_SECONDS)
      if now - seen[1] > patience:
        process = int(name[-9:-5])
        why = f"process {process} of the harvest gives no sign of life"
        if state != "running":
          why = f"process {process} of the harvest has {state}"
        raise self._dead(waiting_for, why)

  def _dead(self, waiting_for: str, why: str) -> errors.InputError:
    return errors.InputError(
      f"{self._place.path}: waiting for {waiting_for}, but {why}; run the same"
      " sae-jax harvest again, then this"
    )


def until(
  ready: Callable[[], bool],
  place: location.Location,
  waiting_for: str,
  *,
  stall_seconds: float = STALL_SECONDS,
  process: int | None = None,
  stop: threading.Event | None = None,
) -> None:
  """Returns once `ready()`, or once `stop` is set; says so if it takes long.

  Raises:
    errors.InputError: the process (None: one of them) died meanwhile.
  """
  watch = Watch(place, stall_seconds, process)
  patience = waiting.Patience()
  for _ in _ticks(stop):
    if ready():
      return
    watch.check(waiting_for)
    patience.say(lambda: f"{place.path}: {waiting_for}")


def _ticks(stop: threading.Event | None) -> Iterator[None]:
  stop = stop or threading.Event()
  pause = _POLL_SECONDS
  while not stop.is_set():
    yield
    stop.wait(pause)
    pause = min(1.2 * pause, 10 * _POLL_SECONDS)


def _beat_file(process: int) -> str:
  return f"{_BEATS}{process:04d}.json"
