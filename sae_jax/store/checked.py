# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads arrays and small files of a store, or says which part is damaged."""

from collections.abc import Sequence

import numpy as np
import tensorstore as ts

from sae_jax import errors
from sae_jax.store import layout, location


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
      try:
        found.append(np.asarray(future.result()))
      except (ValueError, OSError) as error:
        raise self._damage(name, start, stop, error) from error
    return found

  def _damage(
    self, name: str, start: int, stop: int, error: Exception
  ) -> Exception:
    """Finds the first read chunk in the span that fails, and says so."""
    if name == layout.TOKENS:
      read = self._manifest.batch_size
      write = read * self._manifest.group_batches
      what = "documents"
    else:
      read, write, what = (
        self._manifest.read_rows,
        self._manifest.write_rows,
        "rows",
      )
    array = self._array(name)
    for chunk in range(start // read, -(-stop // read)):
      first, last = chunk * read, min((chunk + 1) * read, array.shape[0])
      try:
        array[first:last].read().result()
      except (ValueError, OSError) as found:
        error = found
        break
    text = str(error)
    missing = "NOT_FOUND" in text
    return errors.InputError(
      f"{self._place.path}: {name}: read chunk {first // read} ({what}"
      f" {first}..{last - 1}, file {layout.chunk_file(name, first // write)})"
      f" is {'missing' if missing else 'damaged'}: {text}"
    )
