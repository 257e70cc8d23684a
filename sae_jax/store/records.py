# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Progress records: one small file per write chunk, written after its arrays.

A record holds all that its lane needs to go on: the position in the lane's
batches and the lane's running sums. Records go when the manifest is written.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence

import numpy as np

from sae_jax import artifacts
from sae_jax.store import layout, location, statistics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """A lane's state after its write chunk `chunk` (all sums since its start)."""

  chunk: int
  rows: int  # of this chunk
  first_batch: int  # the lane's batch in which this chunk begins
  next_batch: int  # the lane's batch to go on with …
  skip: int  # … and how many of its kept rows are written already
  exhausted: bool  # the lane's text ended in this chunk
  dropped: dict[str, int]
  rows_hash: str  # chain over the lane's chunks
  tokens_hash: str  # chain over the lane's batches
  moments: tuple[statistics.Moments, ...]  # by hook

  @property
  def batches(self) -> int:
    """Batches of the lane that rows were taken from."""
    return self.next_batch + (self.skip > 0)


def start(widths: Sequence[int]) -> Record:
  """The state of a lane that has written nothing."""
  return Record(
    chunk=-1,
    rows=0,
    first_batch=0,
    next_batch=0,
    skip=0,
    exhausted=False,
    dropped={},
    rows_hash="",
    tokens_hash="",
    moments=tuple(map(statistics.empty, widths)),
  )


def chain(before: str, array: np.ndarray) -> str:
  """Hash of a hash and an int32 array's little-endian bytes."""
  hasher = hashlib.sha256(before.encode())
  hasher.update(np.ascontiguousarray(array, "<i4").tobytes())
  return hasher.hexdigest()


def pairing_hash(rows_hashes: Sequence[str], tokens_hashes: Sequence[str]):
  """One hash of every lane's rows and tokens, in lane order."""
  chains = [*rows_hashes, *tokens_hashes]
  return layout.digest(" ".join(chains).encode())


def write(place: location.Location, record: Record) -> None:
  fields = dataclasses.asdict(record) | {"moments": None}
  arrays = statistics.pack_moments(record.moments)
  arrays["record"] = np.array(json.dumps(fields))
  place.write(layout.record_file(record.chunk), artifacts.npz(arrays))


def read(place: location.Location, chunk: int, hooks: int) -> Record | None:
  data = place.read(layout.record_file(chunk))
  if data is None:
    return None
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    fields = json.loads(str(arrays["record"]))
    moments = tuple(statistics.unpack_moments(arrays, hooks))
  return Record(**fields | {"moments": moments})


def recorded(place: location.Location) -> list[int]:
  """The chunks that have a record, ascending."""
  names = place.names("progress/chunk-")
  return [int(name[-13:-4]) for name in names]
