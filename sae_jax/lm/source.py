# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint's tensors come from: Hugging Face directories.

`Source` is what every kind of checkpoint offers (GGUF has one too): slices by
Hugging Face name. Files are memory-mapped; nothing is read before it is asked.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from sae_jax import errors

_DTYPES: dict[str, Any] = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
}
_HASH_WHOLE_BELOW = 2**30  # bytes; larger files are hashed by samples
_HASH_SAMPLES = 256
_HASH_SAMPLE_BYTES = 2**16

Index = tuple[slice, ...]


class Source(Protocol):
  """A checkpoint's tensors by Hugging Face name."""

  def names(self) -> set[str]: ...

  def shape(self, name: str) -> tuple[int, ...]: ...

  def read(self, name: str, index: Index) -> np.ndarray: ...


class SafetensorsSource:
  """Every `*.safetensors` of a directory (or just `files`), memory-mapped.

  Raises:
    errors.InputError: no such files, a damaged header, or a file of the index
      that is not there.
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    files: Sequence[pathlib.Path] | None = None,
  ):
    self._directory = pathlib.Path(directory)
    self._entries: dict[
      str, tuple[pathlib.Path, int, str, tuple[int, ...]]
    ] = {}
    for path in files or safetensors_files(self._directory):
      self._read_header(path)

  def _read_header(self, path: pathlib.Path):
    size = path.stat().st_size
    with path.open("rb") as file:
      length = int.from_bytes(file.read(8), "little")
      if length > size - 8:
        raise errors.InputError(
          f"{path}: not a safetensors file, or cut off while it was copied;"
          " download it again"
        )
      try:
        header = json.loads(file.read(length))
      except ValueError as error:
        raise errors.InputError(
          f"{path}: the safetensors header is damaged; download it again"
        ) from error
    header.pop("__metadata__", None)
    for name, entry in header.items():
      begin, end = entry["data_offsets"]
      if 8 + length + end > size:
        raise errors.InputError(
          f"{path}: {size} bytes, but {name} ends at byte {8 + length + end};"
          " the file was cut off, download it again"
        )
      self._entries[name] = (
        path,
        8 + length + begin,
        entry["dtype"],
        tuple(entry["shape"]),
      )

  def names(self) -> set[str]:
    return set(self._entries)

  def shape(self, name: str) -> tuple[int, ...]:
    return self._entries[name][3]

  def read(self, name: str, index: Index) -> np.ndarray:
    """A slice of a tensor in its stored dtype, read from the page cache."""
    path, offset, dtype, shape = self._entries[name]
    if dtype not in _DTYPES:
      raise errors.InputError(
        f"{path}: {name} is stored as {dtype}; supported are"
        f" {', '.join(sorted(_DTYPES))} (quantised models: use a .gguf file)"
      )
    array = np.memmap(path, _DTYPES[dtype], "r", offset, shape)
    return np.asarray(array[index])


def safetensors_files(directory: pathlib.Path) -> list[pathlib.Path]:
  """The weight files of a model directory, in order of name.

  Raises:
    errors.InputError: there are none, or the index names one that is missing.
  """
  index = directory / "model.safetensors.index.json"
  if index.is_file():
    mapped = json.loads(index.read_text())["weight_map"]
    paths = [directory / name for name in sorted(set(mapped.values()))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
      raise errors.InputError(
        f"{directory}: {index.name} names {', '.join(missing)}, which is not"
        " there; download the model again"
      )
    return paths
  paths = sorted(directory.glob("*.safetensors"))
  if not paths:
    raise errors.InputError(
      f"{directory}: there is no *.safetensors file in it; save the model with"
      " transformers' save_pretrained, or give a .gguf file"
    )
  return paths


def hash_files(paths: Sequence[pathlib.Path]) -> str:
  """A stable hex digest of weight files, whatever they are called.

  Files below 1 GiB are hashed whole; of larger ones the size, the first 16 MiB
  (the header) and 256 samples of 64 KiB spread evenly.
  """
  digest = hashlib.sha256()
  for path in paths:
    size = path.stat().st_size
    digest.update(size.to_bytes(8, "little"))
    with path.open("rb") as file:
      if size < _HASH_WHOLE_BELOW:
        while chunk := file.read(2**24):
          digest.update(chunk)
        continue
      digest.update(file.read(2**24))
      for i in range(_HASH_SAMPLES):
        file.seek((size - _HASH_SAMPLE_BYTES) * i // (_HASH_SAMPLES - 1))
        digest.update(file.read(_HASH_SAMPLE_BYTES))
  return digest.hexdigest()
