# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""An output directory: locked while written, resumed or refused, sealed last.

`config.json` is written first and says which job owns the directory;
`manifest.json` is written last, so a directory without it is unfinished.
Every file appears whole or not at all.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from sae_jax import errors, version

_HASH_BLOCK = 1 << 20
_MISSING = "(absent)"


@dataclasses.dataclass(kw_only=True)
class Output:
  """A job's directory, held under its lock by `open_output`."""

  path: pathlib.Path
  job: str
  config: dict[str, Any]
  inputs: dict[str, str]
  finished: dict[str, Any] | None  # the manifest of an earlier, complete run
  resumed: bool  # something is already there, unfinished
  lead: bool = True  # the other processes of a run write nothing here
  started: float = dataclasses.field(default_factory=time.monotonic)

  def write_json(self, name: str, value: Any) -> None:
    if self.lead:
      write_json_atomic(self.path / name, value)

  def finish(self, result: dict[str, Any], device: str) -> None:
    """Seals the directory: nothing is written to it afterwards."""
    self.write_json(
      "manifest.json",
      {
        "job": self.job,
        "config": self.config,
        "inputs": self.inputs,
        "code_version": version.__version__,
        "device": device,
        "wall_s": round(time.monotonic() - self.started, 3),
        "result": result,
      },
    )


@contextlib.contextmanager
def open_output(
  out: str | os.PathLike[str],
  *,
  job: str,
  config: dict[str, Any],
  inputs: dict[str, str],
  may_change: tuple[str, ...] = (),
  lead: bool = True,
) -> Iterator[Output]:
  """Opens `out` for a job: new, finished, resumable, or refused.

  Args:
    out: a local directory; it is made when it does not exist.
    job: the job's name.
    config: the job's config as JSON values.
    inputs: name -> hash of what the job reads.
    may_change: config fields (dotted prefixes) that a resumed run may change.
    lead: whether this process writes; the other processes of a multi-process
      run neither lock nor write.

  Raises:
    errors.InputError: `out` cannot be written, belongs to another job, config
      or input, or another process is writing it.
  """
  path = _make_directory(out)
  with lock(path) if lead else contextlib.nullcontext():
    recorded = read_json(path / "config.json")
    if recorded is None:
      _refuse_strange_files(path)
      if lead:
        write_json_atomic(
          path / "config.json",
          {
            "job": job,
            "config": config,
            "inputs": inputs,
            "code_version": version.__version__,
          },
        )
    else:
      _refuse_difference(path, recorded, job, config, inputs, may_change)
    try:
      yield Output(
        path=path,
        job=job,
        config=config,
        inputs=inputs,
        finished=read_json(path / "manifest.json"),
        resumed=recorded is not None,
        lead=lead,
      )
    except errors.InputError:
      if lead and recorded is None:
        _withdraw(path)
      raise


@contextlib.contextmanager
def lock(path: pathlib.Path) -> Iterator[None]:
  """Holds `path/.lock`; the kernel lets go of it when the process dies."""
  handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = os.read(handle, 200).decode(errors="replace").strip()
      raise errors.InputError(
        f"{path} is being written by another run ({holder or 'unknown'});"
        " wait until it ends, or choose another --out"
      ) from None
    os.ftruncate(handle, 0)
    os.pwrite(
      handle, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0
    )
    yield
  finally:
    os.close(handle)


def read_json(path: pathlib.Path) -> Any:
  """The file's value, or None when there is no such file.

  Raises:
    errors.InputError: the file is not JSON.
  """
  try:
    text = path.read_text()
  except FileNotFoundError:
    return None
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    raise errors.InputError(
      f"{path} is not valid JSON ({error}); it was damaged after it was"
      " written: remove the directory, or restore the file"
    ) from error


def write_json_atomic(path: pathlib.Path, value: Any) -> None:
  write_bytes_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def write_bytes_atomic(path: pathlib.Path, data: bytes) -> None:
  """Writes aside, syncs, renames: after a crash, the old file or the new."""
  with replacing(path) as file:
    file.write(data)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
  """An empty file that takes the place of `path` when the block ends well."""
  aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with open(aside, "wb") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(aside, path)
  except BaseException:
    aside.unlink(missing_ok=True)
    raise
  sync_directory(path.parent)


def npz(arrays: Mapping[str, Any]) -> bytes:
  """An uncompressed npz; numpy dates its members 1980, so bytes repeat."""
  buffer = io.BytesIO()
  np.savez(buffer, allow_pickle=False, **arrays)
  return buffer.getvalue()


def write_npz_atomic(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
  write_bytes_atomic(path, npz(arrays))


def sync_directory(path: pathlib.Path) -> None:
  """Makes renames inside a directory survive a power cut."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)


def differences(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
  """Yields (dotted name, old, new) for every leaf that differs."""
  if isinstance(old, dict) and isinstance(new, dict):
    for key in sorted(old.keys() | new.keys()):
      for name, before, now in differences(
        old.get(key, _MISSING), new.get(key, _MISSING)
      ):
        yield f"{key}.{name}".rstrip("."), before, now
  elif old != new:
    yield "", old, new


def hash_json(value: Any) -> str:
  """A hex digest that equal JSON values share, whatever their key order."""
  text = json.dumps(value, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: str | os.PathLike[str]) -> str:
  digest = hashlib.sha256()
  with open(path, "rb") as file:
    while block := file.read(_HASH_BLOCK):
      digest.update(block)
  return digest.hexdigest()


def hash_input(field: str, path: str) -> str:
  """`hash_file` of a file that a config's `field` names.

  Raises:
    errors.InputError: there is no such file.
  """
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise errors.InputError(f"{field}={path}: there is no such file")
  return hash_file(file)


def _make_directory(out: str | os.PathLike[str]) -> pathlib.Path:
  if "://" in os.fspath(out):
    raise errors.InputError(
      f"--out={out}: this job writes to a directory; give a path (stores, and"
      " the checkpoints of sae-jax train, may lie on an object store: see the"
      " config field checkpoints)"
    )
  path = pathlib.Path(out).expanduser().absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.InputError(
      f"--out={path}: cannot make this directory ({error.strerror}); choose"
      " another"
    ) from error
  if not os.access(path, os.W_OK):
    raise errors.InputError(f"--out={path}: not writable; choose another")
  return path


def _withdraw(path: pathlib.Path) -> None:
  """Gives a directory back if the job was refused before it wrote anything."""
  files = [p for p in path.rglob("*") if not p.is_dir()]
  if {p.name for p in files} - {"config.json", ".lock"}:
    return
  for file in files:
    file.unlink()
  for directory in sorted(path.rglob("*"), reverse=True):
    directory.rmdir()
  path.rmdir()


def _refuse_strange_files(path: pathlib.Path) -> None:
  # A kill during the very first write may leave its ".tmp" file behind.
  strange = [p.name for p in path.iterdir() if not p.name.startswith(".")]
  if strange:
    raise errors.InputError(
      f"--out={path} holds {sorted(strange)[0]!r} but no sae-jax job;"
      " choose an empty or new directory"
    )


def _refuse_difference(
  path: pathlib.Path,
  recorded: dict[str, Any],
  job: str,
  config: dict[str, Any],
  inputs: dict[str, str],
  may_change: tuple[str, ...],
) -> None:
  if recorded["job"] != job:
    raise errors.InputError(
      f"--out={path} holds a {recorded['job']!r} job, this is {job!r};"
      " choose another --out"
    )
  for kind, old, new in (
    ("config field", recorded["config"], config),
    ("input", recorded["inputs"], inputs),
  ):
    for name, before, now in differences(old, new):
      if kind == "config field" and any(
        name == m or name.startswith(m + ".") for m in may_change
      ):
        continue
      raise errors.InputError(
        f"--out={path} was started with {kind} {name} = {before!r}, now it is"
        f" {now!r}; restore the old value to go on, or choose another --out"
      )
