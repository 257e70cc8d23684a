# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A directory that TensorStore can reach: local, `gs://` or `s3://`.

Small files are read whole and written whole or not at all.
"""

import contextlib
import errno
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import tensorstore as ts

from sae_jax import errors
from sae_jax.store import waiting

# TensorStore writes a local file under this name and renames it when whole.
_LEFTOVER = ".__lock"


class Location:
  """The root of a store; every name below is relative to it."""

  def __init__(self, path: str | os.PathLike[str]):
    text = os.fspath(path)
    scheme, separator, rest = text.partition("://")
    self.directory: pathlib.Path | None = None  # None on an object store
    if not separator or scheme == "file":
      local = rest if separator else text
      self.directory = pathlib.Path(local).expanduser().absolute()
      self.path = str(self.directory)
    elif scheme in ("gs", "s3") and rest.strip("/"):
      self.path = text.rstrip("/")
    else:
      raise errors.InputError(
        f"store path {text!r}: give a local directory, gs://BUCKET/… or"
        " s3://BUCKET/…"
      )
    self._kvstore: ts.KvStore | None = None

  def spec(self, name: str = "") -> Any:
    """The TensorStore key-value spec of this directory, or of one in it."""
    below = f"{name}/" if name else ""
    if self.directory is None:
      return f"{self.path}/{below}"
    return {"driver": "file", "path": f"{self.path}/{below}"}

  def read(self, name: str) -> bytes | None:
    """A file's bytes; None when there is none."""
    future = self._open().read(name)
    waiting.done(future, lambda: f"{self.path}/{name} is not read yet")
    try:
      result = future.result()
    except (ValueError, OSError) as error:
      raise self.explain(error, f"cannot read {name}") from error
    return bytes(result.value) if result.state == "value" else None

  def write(self, name: str, data: bytes) -> None:
    """Durable and atomic: a reader sees the old file or the new one."""
    try:
      self._open().write(name, data).result()
    except (ValueError, OSError) as error:
      raise self.explain(error, f"cannot write {name}") from error

  def delete(self, names: Iterable[str]) -> None:
    """Deletes files; those that are not there are passed over."""
    kvstore = self._open()
    for future in [kvstore.write(name, None) for name in names]:
      future.result()

  def names(self, prefix: str) -> list[str]:
    """Sorted names of the files below `prefix` (a directory with its `/`)."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""
    limits = ts.KvStore.KeyRange(prefix, end)
    try:
      found = self._open().list(limits).result()
    except (ValueError, OSError) as error:
      raise self.explain(error, f"cannot list {prefix}") from error
    return sorted(name.decode() for name in found)

  def sweep(self) -> None:
    """Removes what killed writers left; only when nobody writes here."""
    if self.directory is None:
      return  # an object store shows no half-written objects
    for found, _, names in os.walk(self.directory, topdown=False):
      directory = pathlib.Path(found)
      for name in names:
        if name.endswith(_LEFTOVER):
          (directory / name).unlink(missing_ok=True)
      with contextlib.suppress(OSError):  # it is not empty, or just went
        directory.rmdir()

  def explain(self, error: Exception, doing: str) -> Exception:
    """What to raise for what TensorStore or the system refused."""
    text = str(error)
    if re.search("RESOURCE_EXHAUSTED|No space left|quota exceeded", text, re.I):
      return OSError(errno.ENOSPC, f"{doing}: {text}", self.path)
    if re.search("PERMISSION_DENIED|Permission denied|UNAUTHEN", text):
      return errors.InputError(
        f"{self.path}: {doing}: no permission; check the path's owner and mode,"
        f" or the credentials of the object store ({text})"
      )
    return errors.InputError(f"{self.path}: {doing}: {text}")

  def _open(self) -> ts.KvStore:
    if self._kvstore is None:
      try:
        self._kvstore = ts.KvStore.open(self.spec()).result()
      except (ValueError, OSError) as error:
        raise self.explain(error, "cannot open it") from error
    return self._kvstore
