# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads a store: rows, their contexts, statistics.

Every chunk read is checked against its crc32c; a damaged or missing one raises
`errors.InputError` with store, array, chunk and rows.
"""

import dataclasses
import functools
import os
import re
import threading
from collections.abc import Sequence

import numpy as np

from sae_jax import errors
from sae_jax.store import checked, draining, layout, location, statistics

# `model.layers.12`, `transformer.h.12`, …: the output of a layer.
_HUGGING_FACE = re.compile(r"[a-z_.]*\.(?:layers|h)\.(\d+)")


@dataclasses.dataclass(frozen=True)
class Context:
  """The tokens around a row.

  Attributes:
    tokens: int32 [n], a piece of the sequence that the model was fed.
    position: index of the row's own token in `tokens`.
    document: the number of the sequence.
    start: index in the sequence of `tokens[0]`.
  """

  tokens: np.ndarray
  position: int
  document: int
  start: int


class Store:
  """An open store; see `open_store`. Safe to use from several threads."""

  def __init__(self, place: location.Location, manifest: layout.Manifest):
    self.place = place
    self.manifest = manifest
    self._checked = checked.Checked(place, manifest)
    self._present: set[int] = set()  # write chunks known to be whole

  @property
  def path(self) -> str:
    return self.place.path

  @property
  def hooks(self) -> tuple[str, ...]:
    return tuple(self.manifest.hooks)

  @property
  def rows(self) -> int:
    return self.manifest.rows

  @property
  def read_rows(self) -> int:
    """Rows per read chunk; the last one may have fewer."""
    return self.manifest.read_rows

  @property
  def write_rows(self) -> int:
    """Rows per write chunk: rows are permuted within one."""
    return self.manifest.write_rows

  @property
  def num_chunks(self) -> int:
    """How many read chunks there are."""
    return -(-self.rows // self.read_rows)

  @property
  def window(self) -> int:
    """Write chunks that are on disk at a time; 0: all."""
    return self.manifest.window

  @property
  def bounded(self) -> bool:
    return self.window > 0

  @property
  def identity(self) -> str:
    """A hash of what the store holds and how."""
    return self.manifest.identity()

  @property
  def identities(self) -> dict[str, str]:
    """Identity by the config field that names the store."""
    return {"store": self.identity}

  def chunk_rows(self, chunks: range) -> int:
    """How many rows consecutive read chunks have."""
    stop = min(chunks.stop * self.read_rows, self.rows)
    return max(0, stop - chunks.start * self.read_rows)

  def d_model(self, hook: str) -> int:
    return self.manifest.hooks[self.hook(hook)]

  def hook(self, name: str) -> str:
    """The store's name of a hook; Hugging Face's spelling is accepted.

    Raises:
      errors.InputError: the store has no such hook; the message lists its own.
    """
    if match := _HUGGING_FACE.fullmatch(name):
      name = f"blocks.{match[1]}.hook_resid_post"
    if name not in self.manifest.hooks:
      raise errors.InputError(
        f"{self.path} has no hook {name!r}; it has {', '.join(self.hooks)}"
      )
    return name

  def read(self, hook: str, start: int, stop: int) -> np.ndarray:
    """Rows x_ND bfloat16 of `start <= row < stop`."""
    return self.read_array(layout.activations(self.hook(hook)), start, stop)

  def read_chunks(self, hook: str, chunks: Sequence[int]) -> list[np.ndarray]:
    """The read chunks x_ND bfloat16 in the order given, read concurrently."""
    step = self.read_rows
    spans = [(c * step, min((c + 1) * step, self.rows)) for c in chunks]
    return self._checked.read(layout.activations(self.hook(hook)), spans)

  def positions(self, start: int, stop: int) -> np.ndarray:
    """int32 [n, 2]: the (document, position) of each row."""
    return self.read_array(layout.ROWS, start, stop)

  def document(self, document: int) -> np.ndarray:
    """int32 [T']: the token sequence, as it was fed to the model."""
    tokens_T = self.read_array(layout.TOKENS, document, document + 1)[0]
    return tokens_T[tokens_T >= 0]

  def read_array(self, name: str, start: int, stop: int) -> np.ndarray:
    """A span of the array of that name (see `layout`)."""
    return self._checked.read(name, [(start, stop)])[0]

  def context(self, row: int, before: int = 20, after: int = 10) -> Context:
    """The row's token with up to `before` and `after` tokens around it."""
    document, position = map(int, self.positions(row, row + 1)[0])
    tokens_T = self.document(document)
    start = max(0, position - before)
    return Context(
      tokens_T[start : position + after + 1],
      position - start,
      document,
      start,
    )

  def stats(self, hook: str) -> statistics.Stats:
    """Statistics of a hook over all rows."""
    return self._stats[self.hook(hook)]

  def wait_chunks(
    self,
    hook: str,
    chunks: Sequence[int],
    *,
    stall_seconds: float = draining.STALL_SECONDS,
    stop: threading.Event | None = None,
  ) -> None:
    """Returns once these read chunks can be read (bounded stores).

    Args:
      hook: one of the store's hooks (all are written together).
      chunks: read chunks.
      stall_seconds: how long the harvest may give no sign of life.
      stop: set it to give up waiting; then this returns at once.

    Raises:
      errors.InputError: the harvest has died, or ended before these chunks, or
        they were released.
    """
    self.hook(hook)
    per_write = self.write_rows // self.read_rows
    for chunk in sorted({c // per_write for c in chunks} - self._present):
      draining.until(
        lambda chunk=chunk: self._is_present(chunk),
        self.place,
        f"write chunk {chunk} of {hook}",
        stall_seconds=stall_seconds,
        stop=stop,
      )

  def release(self, first_chunk: int) -> None:
    """Lets the harvest delete all write chunks before `first_chunk`."""
    if self.bounded and self.place.read(layout.MANIFEST) is None:
      draining.release(self.place, first_chunk)

  def holdout(self, rows: int) -> tuple[range, range]:
    """Splits the read chunks into (training, held out).

    The held-out part is the smallest number of last *write* chunks with at
    least `rows` rows: rows of one document neighbourhood stay together.

    Raises:
      errors.InputError: nothing would be left to train on, or the store is
        bounded.
    """
    if rows < 0:
      raise errors.InputError(f"holdout of {rows} rows: give a number >= 0")
    if self.bounded and rows:
      raise errors.InputError(
        f"{self.path} is bounded (window={self.window}), so no rows of it can"
        " be held out: hold out 0, and harvest a small store of other text to"
        " evaluate on"
      )
    chunks, held = self.manifest.write_chunks, 0
    while held < rows and chunks:
      chunks -= 1
      held = self.rows - chunks * self.write_rows
    if not chunks:
      raise errors.InputError(
        f"{self.path}: holding out {rows} rows takes all {self.rows} (whole"
        f" write chunks of {self.write_rows} are held out); hold out fewer,"
        " harvest more, or harvest with a smaller write_rows"
      )
    split = min(-(-chunks * self.write_rows // self.read_rows), self.num_chunks)
    return range(split), range(split, self.num_chunks)

  def _is_present(self, chunk: int) -> bool:
    """Whether a write chunk is whole; raises if it will never be."""
    end = self.manifest if self.manifest.files else _manifest(self.place)
    first = draining.released(self.place) if end is None else end.first_chunk
    if chunk < first:
      raise errors.InputError(
        f"{self.path}: write chunk {chunk} was released by an earlier reader"
        f" and deleted; the first one left is {first}"
      )
    if end is None:
      present = self.place.read(layout.record_file(chunk)) is not None
    elif chunk < end.write_chunks:
      present = True
    else:
      raise errors.InputError(
        f"{self.path}: write chunk {chunk} will never be: the text ended after"
        f" {end.rows} of the {end.requested_rows} rows that were asked for;"
        " train for fewer steps, or harvest more text"
      )
    if present:
      self._present.add(chunk)
    return present

  @functools.cached_property
  def _stats(self) -> dict[str, statistics.Stats]:
    if not self.manifest.files:
      raise errors.InputError(
        f"{self.path} is still being harvested; its statistics come last"
      )
    data = self._checked.file(layout.STATS)
    return statistics.from_bytes(data, self.hooks)


def open_store(path: str | os.PathLike[str]) -> Store:
  """Opens a finished store, or a bounded one while it is written.

  Raises:
    errors.InputError: there is no store, it is unfinished, or its manifest is
      damaged.
  """
  place = location.Location(path)
  manifest = _manifest(place)
  if manifest is None:
    manifest = _manifest(place, layout.START)
    if manifest is None:
      raise errors.InputError(
        f"{place.path} is no activation store (it has no {layout.MANIFEST});"
        " make one with sae-jax harvest"
      )
    if not manifest.window:
      raise errors.InputError(
        f"{place.path} is unfinished: run the same sae-jax harvest again to"
        " resume it"
      )
  return Store(place, manifest)


def paired(a: Store, b: Store) -> bool:
  """Whether row i of both stores is of the same token of the same text."""
  return bool(a.manifest.pairing_hash) and (
    a.manifest.pairing_hash == b.manifest.pairing_hash
  )


def _manifest(
  place: location.Location, name: str = layout.MANIFEST
) -> layout.Manifest | None:
  data = place.read(name)
  return layout.parse_manifest(data, f"{place.path}/{name}") if data else None
