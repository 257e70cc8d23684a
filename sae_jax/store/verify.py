# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks every byte of a finished store.

Reads all of it once; memory is one write chunk of one array. What cannot be
read is named by array, read chunk, rows and file.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np

from sae_jax import errors
from sae_jax.store import layout, location, reader, records, statistics


@dataclasses.dataclass(frozen=True)
class Finding:
  """Something that is wrong.

  Attributes:
    file: the file concerned, relative to the store.
    problem: what is wrong, with array, chunk and rows where there are some.
  """

  file: str
  problem: str


def verify(
  path: str | os.PathLike[str],
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:
  """Checks hashes, checksums, missing and strange files, and statistics.

  Args:
    path: a finished store.
    progress: called with (write chunks of all arrays done, in all).

  Returns:
    Findings, empty if the store is whole. With no usable manifest there is one
    finding only: nothing else can be judged.

  Raises:
    errors.InputError: there is no finished store.
  """
  try:
    source = reader.open_store(path)
  except errors.InputError as error:
    if location.Location(path).read(layout.MANIFEST) is None:
      raise
    return [Finding(layout.MANIFEST, str(error))]
  if not source.manifest.files:
    raise errors.InputError(
      f"{source.path} is still being written; verify it when it is finished"
    )
  return list(_findings(source, progress))


def _findings(
  source: reader.Store, progress: Callable[[int, int], None]
) -> Iterator[Finding]:
  manifest = source.manifest
  small = list(_small_files(source))
  yield from small
  broken = {finding.file for finding in small}
  expected = {layout.MANIFEST, *manifest.files}
  arrays = [
    name
    for name in layout.array_names(manifest)
    if f"{name}/zarr.json" not in broken
  ]
  files = {name: layout.chunk_files(manifest, name) for name in arrays}
  total = sum(map(len, files.values()))
  done, whole = 0, not small
  check = _Check(source)
  for name in arrays:
    for file, (start, stop) in files[name].items():
      expected.add(file)
      try:
        check.take(name, start, source.read_array(name, start, stop))
      except errors.InputError:
        whole = False
        yield from _damaged_blocks(source, name, file, start, stop)
      done += 1
      progress(done, total)
  if whole:
    yield from check.findings()
  for name in source.place.names(""):
    strange = name not in expected and name != ".lock"
    if strange and not any(
      name.startswith(b.rpartition("/")[0]) for b in broken
    ):
      yield Finding(name, "is no part of the store")


def _small_files(source: reader.Store) -> Iterator[Finding]:
  for name, digest in source.manifest.files.items():
    data = source.place.read(name)
    if data is None:
      yield Finding(name, f"{source.path}/{name} is missing")
    elif layout.digest(data) != digest:
      yield Finding(
        name,
        f"{source.path}/{name} is damaged: its bytes do not match the manifest",
      )


def _damaged_blocks(
  source: reader.Store, name: str, file: str, start: int, stop: int
) -> Iterator[Finding]:
  tokens = name == layout.TOKENS
  step = source.manifest.batch_size if tokens else source.read_rows
  for first in range(start, stop, step):
    try:
      source.read_array(name, first, min(first + step, stop))
    except errors.InputError as error:
      yield Finding(file, str(error))


class _Check:
  """What the arrays' contents must agree with, chunk by chunk."""

  def __init__(self, source: reader.Store):
    self._source = source
    self._manifest = source.manifest
    lanes = source.manifest.lanes
    self._rows_hash, self._tokens_hash = [""] * lanes, [""] * lanes
    hooks = source.manifest.hooks.items()
    self._moments = {
      layout.activations(hook): [statistics.empty(width)] * lanes
      for hook, width in hooks
    }

  def take(self, name: str, start: int, part: np.ndarray) -> None:
    """The whole write chunk of an array, in ascending order of chunks."""
    size = self._manifest.write_rows
    if name == layout.TOKENS:
      size = self._manifest.batch_size * self._manifest.group_batches
    lane = start // size % self._manifest.lanes
    if name == layout.ROWS:
      self._rows_hash[lane] = records.chain(self._rows_hash[lane], part)
    elif name == layout.TOKENS:
      for start in range(0, len(part), self._manifest.batch_size):
        batch_BT = part[start : start + self._manifest.batch_size]
        self._tokens_hash[lane] = records.chain(
          self._tokens_hash[lane], batch_BT
        )
    else:
      self._moments[name][lane] += statistics.moments(part)

  def findings(self) -> Iterator[Finding]:
    """A bounded store has lost what hashes and statistics are of."""
    manifest = self._manifest
    if manifest.window:
      return
    pairing = records.pairing_hash(self._rows_hash, self._tokens_hash)
    if pairing != manifest.pairing_hash:
      yield Finding(
        layout.MANIFEST,
        f"{self._source.path}: rows and tokens do not match pairing_hash in"
        f" {layout.MANIFEST}",
      )
    for hook in manifest.hooks:
      total, *others = self._moments[layout.activations(hook)]
      for other in others:
        total += other
      computed = statistics.finish(total, manifest.dropped)
      stored = self._source.stats(hook)
      if not statistics.equal(computed, stored):
        yield Finding(
          layout.STATS,
          f"{self._source.path}: the statistics of {hook} in {layout.STATS} are"
          " not those of its rows",
        )
