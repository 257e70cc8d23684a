# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What lies where in a store, and the manifest that says so.

manifest.json        written last
activations/HOOK/    zarr3 bfloat16 [rows, D]
rows/                zarr3 int32 [rows, 2]: (document, position)
tokens/              zarr3 int32 [documents, context length], -1: no token
stats.npz            statistics per hook
progress/            only while a harvest is under way
"""

import dataclasses
import hashlib
import json
from typing import Any

import tensorstore as ts

from sae_jax import artifacts, errors
from sae_jax.store import location

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
STATS = "stats.npz"
START = "progress/start.json"
RELEASED = "released.json"
ROWS = "rows"
TOKENS = "tokens"
MAX_DOCUMENTS = 2**31 - 1  # documents are numbered in int32

_KNOWN_AT_THE_END = (
  "lane_batches",
  "first_chunk",
  "lane_first_batches",
  "dropped",
  "pairing_hash",
  "files",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
  """What a store holds and where it came from.

  While a harvest is under way `rows` is what was asked for, and the fields
  with defaults are empty.
  """

  schema_version: int = SCHEMA_VERSION
  hooks: dict[str, int]  # canonical name -> D
  rows: int
  read_rows: int
  write_rows: int
  dtype: str = "bfloat16"
  context_length: int
  batch_size: int  # contexts per batch
  group_batches: int  # batches per chunk of tokens
  lanes: int
  window: int  # write chunks on disk at a time; 0: all
  seed: int
  model: str
  weights_hash: str
  tokenizer_hash: str
  prepends_bos: bool
  chat_template: bool  # whether chats would go through one
  text_source: str
  text_fingerprint: str
  filters: dict[str, Any]
  config: dict[str, Any]
  code_version: str
  requested_rows: int
  lane_batches: tuple[int, ...] = ()  # batches that each lane took
  first_chunk: int = 0  # write chunks below were released …
  lane_first_batches: tuple[int, ...] = ()  # … and tokens before these
  dropped: dict[str, int] = dataclasses.field(default_factory=dict)
  pairing_hash: str = ""
  files: dict[str, str] = dataclasses.field(default_factory=dict)

  @property
  def write_chunks(self) -> int:
    return -(-self.rows // self.write_rows)

  def identity(self) -> str:
    """A hash of what the store holds. That of a bounded store is the same
    before and after its end, so it is of what was asked for."""
    value = dataclasses.asdict(self)
    if self.window:
      for name in _KNOWN_AT_THE_END:
        del value[name]
      value["rows"] = self.requested_rows
    return artifacts.hash_json(value)

  @property
  def documents(self) -> int:
    """One more than the largest number of a document."""
    slots = [
      self.document_slot(lane, batches - 1)
      for lane, batches in enumerate(self.lane_batches)
      if batches
    ]
    return (max(slots) + 1) * self.batch_size

  def document_slot(self, lane: int, batch: int) -> int:
    """Where a lane's n-th batch stands among all: slot · batch_size is the
    number of its first document. Lanes take turns by whole token chunks, so
    that each chunk has one writer."""
    group, within = divmod(batch, self.group_batches)
    return (group * self.lanes + lane) * self.group_batches + within


def activations(hook: str) -> str:
  return f"activations/{hook}"


def chunk_file(array: str, chunk: int) -> str:
  """The file of a write chunk; all arrays are cut along rows only."""
  return f"{array}/c/{chunk}/0"


def chunk_files(manifest: Manifest, array: str) -> dict[str, tuple[int, int]]:
  """The files that a finished store has of an array, each with its rows (of
  tokens: documents) as (start, stop); every lane's in ascending order."""
  if array != TOKENS:
    size, end = manifest.write_rows, manifest.rows
    return {
      chunk_file(array, c): (c * size, min((c + 1) * size, end))
      for c in range(manifest.first_chunk, manifest.write_chunks)
    }
  spans: dict[int, tuple[int, int]] = {}
  size = manifest.batch_size
  for lane, batches in enumerate(manifest.lane_batches):
    for batch in range(manifest.lane_first_batches[lane], batches):
      slot = manifest.document_slot(lane, batch)
      start, _ = spans.get(slot // manifest.group_batches, (slot * size, 0))
      spans[slot // manifest.group_batches] = start, (slot + 1) * size
  return {chunk_file(array, c): spans[c] for c in sorted(spans)}


def record_file(chunk: int) -> str:
  return f"progress/chunk-{chunk:09d}.npz"


def seal(value: dict[str, Any]) -> bytes:
  """JSON that carries its own hash, so that any flipped byte shows."""
  sealed = {**value, "sha256": artifacts.hash_json(value)}
  return (json.dumps(sealed, indent=1) + "\n").encode()


def unseal(data: bytes, place: str) -> dict[str, Any]:
  """The value that `seal` wrote.

  Raises:
    errors.InputError: the bytes are not those that were written.
  """
  try:
    value = json.loads(data)
  except ValueError:
    value = None
  if isinstance(value, dict) and "job" in value and "sha256" not in value:
    raise errors.InputError(
      f"{place} is that of a {value['job']!r} job, not of an activation store"
    )
  if isinstance(value, dict) and "sha256" in value:
    digest = value.pop("sha256")
    # Equal values may be spelt differently: blanks, escapes, 1.0 for 1.00.
    if digest == artifacts.hash_json(value) and seal(value) == data:
      return value
  raise errors.InputError(
    f"{place} is damaged: its bytes do not match its hash; restore the file, or"
    " remove the directory and harvest again"
  )


def manifest_bytes(manifest: Manifest) -> bytes:
  return seal(dataclasses.asdict(manifest) | {"kind": "store"})


def parse_manifest(data: bytes, place: str) -> Manifest:
  """Reads what `manifest_bytes` wrote.

  Raises:
    errors.InputError: it is damaged, of another kind or of another version.
  """
  value = unseal(data, place)
  version = value.get("schema_version")
  if value.pop("kind", None) != "store" or version != SCHEMA_VERSION:
    raise errors.InputError(
      f"{place}: store schema {version!r}, this code reads {SCHEMA_VERSION};"
      " use the version of sae_jax that wrote it"
      f" ({value.get('code_version')}), or harvest again"
    )
  for key in ("lane_batches", "lane_first_batches"):
    value[key] = tuple(value[key])
  return Manifest(**value)


def digest(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def array_names(manifest: Manifest) -> tuple[str, ...]:
  return (*map(activations, manifest.hooks), ROWS, TOKENS)


def open_array(
  place: location.Location,
  manifest: Manifest,
  array: str,
  *,
  create: bool = False,
) -> ts.TensorStore:
  """Opens one array; a chunk that is not there is an error, never zeros."""
  spec: dict[str, Any] = {
    "driver": "zarr3",
    "kvstore": place.spec(array),
    "fill_missing_data_reads": False,
    "store_data_equal_to_fill_value": True,
  }
  if create:
    spec["metadata"] = _metadata(manifest, array)
  try:
    return ts.open(spec, open=True, create=create).result()
  except (ValueError, OSError) as error:
    raise place.explain(error, f"cannot open {array}") from error


def _metadata(manifest: Manifest, array: str) -> dict[str, Any]:
  if array == TOKENS:
    width, read = manifest.context_length, manifest.batch_size
    rows, write = MAX_DOCUMENTS, read * manifest.group_batches
    dtype, fill = "int32", -1
  else:
    rows, read, write = manifest.rows, manifest.read_rows, manifest.write_rows
    if array == ROWS:
      width, dtype, fill = 2, "int32", -1
    else:
      width = manifest.hooks[array.removeprefix("activations/")]
      dtype, fill = manifest.dtype, "NaN"
  little = {"name": "bytes", "configuration": {"endian": "little"}}
  checked = [little, {"name": "crc32c"}]
  return {
    "shape": [rows, width],
    "data_type": dtype,
    "fill_value": fill,
    "chunk_grid": {
      "name": "regular",
      "configuration": {"chunk_shape": [write, width]},
    },
    "codecs": [
      {
        "name": "sharding_indexed",
        "configuration": {
          "chunk_shape": [read, width],
          "codecs": checked,
          "index_codecs": checked,
          "index_location": "end",
        },
      }
    ],
  }
