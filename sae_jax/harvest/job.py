# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a harvest to its end, however often it is started.

All state is in the store's directory: processes meet only there, and a harvest
that was killed goes on from its records to the same bytes.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

import jax

from sae_jax import artifacts, errors, interrupt, metrics, store
from sae_jax.harvest import begin, paired
from sae_jax.harvest import config as harvest_config
from sae_jax.harvest import lanes as lanes_lib
from sae_jax.harvest import rows as rows_lib
from sae_jax.harvest import source as source_lib
from sae_jax.store import draining, layout, location, writer


def harvest(
  config: harvest_config.HarvestConfig, out: str | os.PathLike[str]
) -> store.Manifest:
  """Writes the store `out`, resumes it, or finds it finished.

  In a multi-process run every process calls this; they share the lanes.

  Raises:
    errors.InputError: a wrong config or input, or `out` holds something else.
    errors.Interrupted: SIGTERM or SIGINT; the same call goes on.
    OSError: the disk is full; the same call goes on.
  """
  config, base = paired.resolve(config)
  return run(
    config,
    source_lib.open_source(config, base),
    out,
    process=jax.process_index(),
    processes=jax.process_count(),
  )


def run(
  config: harvest_config.HarvestConfig,
  source: source_lib.Source,
  out: str | os.PathLike[str],
  *,
  process: int = 0,
  processes: int = 1,
  stall_seconds: float = draining.STALL_SECONDS,
) -> store.Manifest:
  """`harvest` of an open source; process 0 creates and finishes the store."""
  if processes > config.lanes:
    raise errors.InputError(
      f"lanes={config.lanes}, but there are {processes} processes: set lanes to"
      " the number of processes or a multiple of it"
    )
  place = location.Location(out)
  lead = process == 0
  with (
    _lock(place) if lead else contextlib.nullcontext(),
    interrupt.catch(in_step=False) as stop,
  ):

    def check():
      if stop.requested:
        raise errors.Interrupted(
          f"{stop.requested}: {place.path} is unfinished; run the same command"
          " again to go on where it stopped"
        )

    finished = begin.finished(place)
    if finished is not None:
      begin.check_same(place, finished, config, source)
    else:
      if lead:
        draining.forget_processes(place, processes)
      with draining.Heartbeat(place, process):
        opened = begin.open_writer(config, source, place, lead, stall_seconds)
        if opened is not None:
          _write_lanes(config, source, opened, process, processes, check)
        if opened is not None and lead:
          _wait_lanes(opened, processes, check, stall_seconds)
          finished = opened.finish()
    if not lead:
      return _wait_finished(place, check, stall_seconds)
    writer.clean(place)
    assert finished is not None
  if finished.rows < config.rows and source.base is None:
    print(
      f"{place.path}: the text ended after {finished.rows:,} of the"
      f" {config.rows:,} rows asked for",
      file=sys.stderr,
    )
  return finished


def _write_lanes(
  config: harvest_config.HarvestConfig,
  source: source_lib.Source,
  out: store.StoreWriter,
  process: int,
  processes: int,
  check: Callable[[], None],
) -> None:
  """Writes what is missing of this process's lanes."""
  lanes = [n for n in range(config.lanes) if n % processes == process]
  filters = rows_lib.Filters(
    special=source.special if config.drop_special else {},
    largest_norms=out.manifest.filters["largest_norms"],
  )

  def open_kept(lane: int, first: int) -> Iterator[rows_lib.Kept]:
    batches = source.open_batches(lane, first)
    if source.base is None:
      return rows_lib.kept(source.activations, batches, filters, first)
    keeps = paired.Tokens(source.base).rows(lane, first)
    return rows_lib.given(source.activations, batches, keeps, first)

  with _progress(out.manifest, lanes, show=process == 0) as progress:
    lanes_lib.run(
      out,
      lanes,
      open_kept,
      check=check,
      progress=progress,
    )


def _wait_finished(
  place: location.Location, check: Callable[[], None], stall_seconds: float
) -> store.Manifest:
  def ready() -> bool:
    check()
    return begin.finished(place) is not None

  draining.until(
    ready,
    place,
    "process 0 to finish the store",
    stall_seconds=stall_seconds,
    process=0,
  )
  found = begin.finished(place)
  assert found is not None
  return found


def _wait_lanes(
  out: store.StoreWriter,
  processes: int,
  check: Callable[[], None],
  stall_seconds: float,
) -> None:
  """Waits until the other processes' lanes have ended."""
  manifest = out.manifest

  def ended(lane: int) -> bool:
    check()
    last = out.lane(lane)
    following = last.chunk + manifest.lanes if last.chunk >= 0 else lane
    return last.exhausted or following >= manifest.write_chunks

  for lane in range(manifest.lanes):
    draining.until(
      lambda lane=lane: ended(lane),
      out.place,
      f"lane {lane} to end",
      stall_seconds=stall_seconds,
      process=lane % processes,
    )


@contextlib.contextmanager
def _lock(place: location.Location) -> Iterator[None]:
  """One lead at a time; an object store cannot tell."""
  if place.directory is None:
    yield
    return
  try:
    place.directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.InputError(
      f"--out={place.path}: cannot make this directory ({error.strerror});"
      " choose another"
    ) from error
  with artifacts.lock(place.directory):
    try:
      yield
    finally:
      begun = place.read(layout.START) is not None
      done = place.read(layout.MANIFEST) is not None
      if done or not begun:  # nobody will write here
        (place.directory / ".lock").unlink(missing_ok=True)
      progress = place.directory / "progress"
      if not begun and progress.exists() and not any(progress.iterdir()):
        progress.rmdir()


@contextlib.contextmanager
def _progress(manifest: store.Manifest, mine: list[int], *, show: bool):
  """Yields a function that takes the rows of these lanes that are durable."""
  chunks = range(manifest.write_chunks)
  total = sum(
    min(manifest.write_rows, manifest.rows - c * manifest.write_rows)
    for c in chunks
    if c % manifest.lanes in mine
  )
  bar: metrics.Progress | None = None

  def update(rows: int) -> None:
    nonlocal bar
    if bar is None:
      bar = metrics.Progress(total, "rows", initial=rows, show=show)
    else:
      bar.update(rows)

  try:
    yield update
  finally:
    if bar is not None:
      bar.close()
