# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers of a run: JSONL, TensorBoard, wandb if installed; progress lines.

One JSON object per step, `{"step": n, name: value, …}`. On resume everything
at or after the resumed step is cut off first, so that the file always reads
like that of one uninterrupted run.
"""

import importlib.util
import json
import math
import pathlib
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, Self

import jax
import tqdm

from sae_jax import artifacts, errors

# tensorboardX imports torch where it is installed: 2 s that no job needs.
sys.modules.setdefault("torch", None)  # pyrefly: ignore[no-matching-overload]
from tensorboardX import record_writer  # noqa: E402
from tensorboardX.proto import event_pb2, summary_pb2  # noqa: E402

if sys.modules["torch"] is None:
  del sys.modules["torch"]

_FLUSH_SECONDS = 10.0


class NonFiniteError(FloatingPointError):
  """A watched metric became NaN or infinite."""


class Writer:
  """Appends metrics of one run directory; process 0 only should own one."""

  def __init__(
    self, directory: pathlib.Path, start_step: int, wandb_project: str = ""
  ):
    self._path = directory / "metrics.jsonl"
    _cut(self._path, start_step)
    self._file = open(self._path, "a", buffering=1)  # noqa: SIM115
    self._board = _Board(directory / "tensorboard", start_step)
    self._wandb = _open_wandb(directory, wandb_project)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends one line; a non-finite number becomes null (JSON has none)."""
    line = {
      name: value if math.isfinite(value) else None
      for name, value in values.items()
    }
    self._file.write(json.dumps({"step": step, **line}) + "\n")
    self._board.write(step, values)
    if self._wandb is not None:
      self._wandb.log(dict(values), step=step)

  def write_remote(self, step: int, values: Mapping[str, float]) -> None:
    """Sends values that are in another directory's files to wandb alone."""
    if self._wandb is not None:
      self._wandb.log(dict(values), step=step)

  def close(self) -> None:
    self._file.close()
    self._board.close()
    if self._wandb is not None:
      self._wandb.finish()


class _Board:
  """A TensorBoard event file, written in the caller's thread.

  tensorboardX's own writer has a thread that dies on a full disk, after which
  the training thread waits for it for ever.
  """

  def __init__(self, directory: pathlib.Path, start_step: int):
    directory.mkdir(exist_ok=True)
    name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
    self._records = record_writer.RecordWriter(str(directory / name))
    self._flushed = time.time()
    self._add(event_pb2.Event(file_version="brain.Event:2"))
    # Tells TensorBoard to forget what earlier files have from this step on.
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._add(event_pb2.Event(step=start_step, session_log=start))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    scalars = [
      summary_pb2.Summary.Value(tag=name, simple_value=value)
      for name, value in values.items()
    ]
    summary = summary_pb2.Summary(value=scalars)
    self._add(event_pb2.Event(step=step, summary=summary))

  def close(self) -> None:
    self._records.close()

  def _add(self, event: event_pb2.Event) -> None:
    event.wall_time = time.time()
    self._records.write(event.SerializeToString())
    if event.wall_time - self._flushed > _FLUSH_SECONDS:  # it is an fsync
      self._records.flush()
      self._flushed = event.wall_time


class OneStepLate:
  """Reads the scalars of step n-1 while step n runs on the device.

  Raises `NonFiniteError` naming the first step whose `watch` metric is not
  finite; no later step is ever reported or saved after that.
  """

  def __init__(self, writer: Writer | None, every: int, watch: str):
    self._writer = writer
    self._every = every
    self._watch = watch
    self._waiting: tuple[int, Mapping[str, jax.Array], dict[str, float]] | None
    self._waiting = None
    self.last: dict[str, float] = {}

  def __call__(
    self, step: int, scalars: Mapping[str, jax.Array], extra: dict[str, float]
  ) -> None:
    """Hands in step `step`; `extra` holds host-side numbers of the step."""
    for value in scalars.values():
      value.copy_to_host_async()
    self.flush()
    self._waiting = (step, scalars, extra)

  def flush(self) -> None:
    """Reads, checks and writes what was handed in last."""
    if self._waiting is None:
      return
    step, scalars, extra = self._waiting
    self._waiting = None
    watched = float(jax.device_get(scalars[self._watch]))
    if not math.isfinite(watched):
      raise NonFiniteError(f"{self._watch} is {watched} at step {step}")
    if step % self._every == 0:
      values = {k: float(v) for k, v in jax.device_get(dict(scalars)).items()}
      self.last = values | extra
      if self._writer is not None:
        self._writer.write(step, self.last)


class Progress:
  """A bar on a terminal, one plain line every `seconds` elsewhere (stderr)."""

  def __init__(
    self,
    total: int,
    unit: str,
    *,
    initial: int = 0,
    show: bool = True,
    seconds: float = 10.0,
  ):
    self._unit = unit
    self._total = total
    self._first = self._done = initial
    self._note = ""
    self._started = self._printed = time.monotonic()
    self._seconds = seconds
    self._show = show
    self._bar = None
    if show and sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        total=total, initial=initial, unit=unit, unit_scale=True, smoothing=0.1
      )

  def update(self, done: int, note: str = "") -> None:
    """Sets how much is done (not how much more)."""
    self._note = note or self._note
    if self._bar is not None:
      self._bar.set_postfix_str(self._note, refresh=False)
      self._bar.update(done - self._done)
    self._done = done
    now = time.monotonic()
    if self._bar is None and now - self._printed >= self._seconds:
      self._print(now)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()
    elif self._done > self._first:
      self._print(time.monotonic())

  def _print(self, now: float) -> None:
    if not self._show:
      return
    self._printed = now
    rate = (self._done - self._first) / max(now - self._started, 1e-9)
    left = (self._total - self._done) / rate if rate else math.inf
    line = f"{self._done:,}/{self._total:,} {self._unit}, {rate:,.1f}/s"
    if left > 0 and math.isfinite(left):
      line += f", {left:,.0f} s left"
    print(f"{line}  {self._note}".rstrip(), file=sys.stderr, flush=True)


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of a metrics.jsonl; a torn last line is left out."""
  lines = []
  if path.exists():
    for text in path.read_text().splitlines(keepends=True):
      if text.endswith("\n"):
        lines.append(json.loads(text))
  return lines


def _open_wandb(directory: pathlib.Path, project: str) -> Any:
  if not project:
    return None
  if importlib.util.find_spec("wandb") is None:
    raise errors.InputError(
      f"wandb_project={project!r}, but wandb is not installed: pip install"
      " wandb, or leave the field empty"
    )
  wandb = importlib.import_module("wandb")
  name = artifacts.hash_json(str(directory))[:16]
  return wandb.init(project=project, id=name, resume="allow")


def _cut(path: pathlib.Path, start_step: int) -> None:
  if not path.exists():
    return
  kept = [line for line in read(path) if line["step"] < start_step]
  text = "".join(json.dumps(line) + "\n" for line in kept)
  artifacts.write_bytes_atomic(path, text.encode())
