# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads arrays and small files of a store, or says which part is damaged."""

import functools
from collections.abc import Sequence

import numpy as np
import tensorstore as ts

from sae_jax import errors
from sae_jax.store import layout, location, waiting


class Checked:
  """A store's bytes, checked against checksums and the manifest's hashes."""

  def __init__(self, place: location.Location, manifest: layout.Manifest):
    self._place, self._manifest = place, manifest
    self._arrays: dict[str, ts.TensorStore] = {}

  def file(self, name: str) -> bytes:
    data = self._place.read(name)
    if data is None:
      raise errors.InputError(
        f"{self._place.path}/{name} is missing; restore it, or harvest again"
      )
    if layout.digest(data) != self._manifest.files[name]:
      raise errors.InputError(
        f"{self._place.path}/{name} is damaged: its bytes do not match the"
        " manifest; restore it, or harvest again"
      )
    return data

  def _array(self, name: str) -> ts.TensorStore:
    if name not in self._arrays:  # two threads may both open it: no harm
      if self._manifest.files:
        self.file(f"{name}/zarr.json")
      self._arrays[name] = layout.open_array(self._place, self._manifest, name)
    return self._arrays[name]

  def read(
    self, name: str, spans: Sequence[tuple[int, int]]
  ) -> list[np.ndarray]:
    array = self._array(name)
    for start, stop in spans:
      if not 0 <= start <= stop <= array.shape[0]:
        what = "documents" if name == layout.TOKENS else "rows"
        raise errors.InputError(
          f"{self._place.path}: {what} {start}..{stop} of {name} asked for,"
          f" there are {array.shape[0]}"
        )
    batch = ts.Batch()
    futures = [array[a:b].read(batch=batch) for a, b in spans]
    batch.submit()
    found = []
    for (start, stop), future in zip(spans, futures, strict=True):
      waiting.done(future, functools.partial(self._pending, name, start, stop))
      try:
        found.append(np.asarray(future.result()))
      except (ValueError, OSError) as error:
        raise self._damage(name, start, stop, error) from error
    return found

  def _damage(
    self, name: str, start: int, stop: int, error: Exception
  ) -> Exception:
    """Finds the first read chunk in the span that fails, and says so."""
    array = self._array(name)
    read, _ = self._sizes(name)
    for chunk in range(start // read, -(-stop // read)):
      first, last = chunk * read, min((chunk + 1) * read, array.shape[0])
      again = array[first:last].read()
      waiting.done(again, functools.partial(self._pending, name, first, last))
      try:
        again.result()
      except (ValueError, OSError) as found:
        error = found
        break
    text = str(error)
    missing = "NOT_FOUND" in text
    return errors.InputError(
      f"{self._chunk(name, first)} is {'missing' if missing else 'damaged'}:"
      f" {text}"
    )

  def _pending(self, name: str, start: int, stop: int) -> str:
    return (
      f"{self._chunk(name, start)} is not read yet (of {start}..{stop - 1});"
      " check the disk, the network and the object store"
    )

  def _chunk(self, name: str, start: int) -> str:
    """The name of the read chunk that `start` is in."""
    read, write = self._sizes(name)
    first = start // read * read
    last = min(first + read, self._array(name).shape[0]) - 1
    what = "documents" if name == layout.TOKENS else "rows"
    return (
      f"{self._place.path}: {name}: read chunk {first // read} ({what}"
      f" {first}..{last}, file {layout.chunk_file(name, first // write)})"
    )

  def _sizes(self, name: str) -> tuple[int, int]:
    """Rows (of tokens: documents) in a read chunk and in a write chunk."""
    manifest = self._manifest
    if name == layout.TOKENS:
      return manifest.batch_size, manifest.batch_size * manifest.group_batches
    return manifest.read_rows, manifest.write_rows
