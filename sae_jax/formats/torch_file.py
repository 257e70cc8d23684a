# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Files of `torch.save`, read and written without torch.

A zip of one pickle and of a record per storage, uncompressed. Read are dicts of
tensors and plain values; whatever else a pickle could ask for is refused by its
name (see `torch_pickle`). What is written, torch.load(weights_only=True) opens.
"""

import contextlib
import math
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from sae_jax import artifacts, errors
from sae_jax.formats import streamed, torch_dump, torch_pickle

_ROOT = "archive"
_ALIGNMENT = 64  # bytes, as torch does, so that it can map what is written
_ALLOWED = (
  "tensors, numbers, strings, and dicts, lists and tuples of them are read,"
  " because anything else could run code; write those alone, with"
  " torch.save(model.state_dict(), FILE)"
)


def names(path: pathlib.Path) -> frozenset[str]:
  """The keys of the dict in the file, without reading its tensors.

  Empty for what is no such file.
  """
  try:
    return frozenset(read(path, verify=False))
  except (errors.InputError, OSError):
    return frozenset()


def read(
  path: str | os.PathLike[str], *, verify: bool = True
) -> dict[str, Any]:
  """The dict in the file; its tensors as read-only memory maps, on the host.

  Args:
    path: the file.
    verify: read all of it once, to check its checksums.

  Raises:
    errors.InputError: there is no such file, it is damaged, it is of torch's
      format before 1.6, or it holds what is not read; that is named.
  """
  path = pathlib.Path(path)
  _check_kind(path)
  try:
    with zipfile.ZipFile(path) as archive:
      records = {info.filename: info for info in archive.infolist()}
  except (
    *(zipfile.BadZipFile, NotImplementedError, ValueError, struct.error),
  ) as error:
    raise _damaged(path, str(error)) from None
  reader = _Reader(path, records, verify)
  try:
    found = torch_pickle.loads(reader.pickle(), reader.tensor)
  except torch_pickle.Refused as error:
    raise errors.InputError(f"{path} holds {error}: only {_ALLOWED}") from None
  except torch_pickle.Malformed as error:
    raise _damaged(path, f"its pickle: {error}") from None
  if type(found) is not dict or not all(type(key) is str for key in found):
    raise errors.InputError(
      f"{path} holds no dict of names and values but a {type(found).__name__}:"
      " save a state dict, with torch.save(model.state_dict(), FILE)"
    )
  return found


def _check_kind(path: pathlib.Path) -> None:
  try:
    with open(path, "rb") as file:
      start = file.read(4)
  except FileNotFoundError:
    raise errors.InputError(f"{path}: no such file") from None
  except IsADirectoryError:
    raise errors.InputError(f"{path} is a directory, not a file") from None
  if start == b"PK\x03\x04":
    return
  if start[:1] == b"\x80":
    raise errors.InputError(
      f"{path} is in the format that torch wrote before 1.6, which is not read;"
      " write it anew, in torch: torch.save(torch.load(FILE,"
      " weights_only=True), FILE)"
    )
  raise errors.InputError(f"{path} is not a file of torch.save")


def _damaged(path: pathlib.Path, why: str) -> errors.InputError:
  return errors.InputError(
    f"{path} is damaged, or not a file of torch.save ({why}); copy or download"
    " it again"
  )


class _Reader:
  """Makes the tensors of one file."""

  def __init__(
    self, path: pathlib.Path, records: dict[str, zipfile.ZipInfo], verify: bool
  ):
    self._path, self._records, self._verify = path, records, verify
    self._root = ""
    self._held: dict[str, np.ndarray] = {}  # by key, as bytes

  def pickle(self) -> bytes:
    """The pickle; zips of torch's other kinds are refused."""
    found = [
      name
      for name in self._records
      if name.endswith("/data.pkl") and name.count("/") == 1
    ]
    if len(found) != 1:
      raise _damaged(self._path, f"{len(found)} records data.pkl")
    self._root = found[0].removesuffix("/data.pkl")
    if f"{self._root}/constants.pkl" in self._records:
      raise errors.InputError(
        f"{self._path} is a TorchScript program, which is not read: only"
        f" {_ALLOWED}"
      )
    order = self._records.get(f"{self._root}/byteorder")
    if order is not None and self._bytes(order).tobytes() != b"little":
      raise errors.InputError(
        f"{self._path} was written on a big-endian machine, which is not read;"
        " write it anew on another, in torch: torch.save(torch.load(FILE,"
        " weights_only=True), FILE)"
      )
    return self._bytes(self._records[found[0]]).tobytes()

  def tensor(
    self, storage: torch_pickle.Storage, offset: Any, shape: Any, strides: Any
  ) -> np.ndarray:
    """A view of a storage; raises ValueError where it leaves it."""
    shape, strides = tuple(shape), tuple(strides)
    if len(shape) != len(strides) or any(
      type(n) is not int or n < 0 for n in (offset, *shape, *strides)
    ):
      raise ValueError(f"shape {shape}, strides {strides}, offset {offset}")
    size = storage.dtype.itemsize
    held = self._storage(storage)
    if not math.prod(shape):
      return np.zeros(shape, storage.dtype)
    last = offset + sum(
      (n - 1) * step for n, step in zip(shape, strides, strict=True)
    )
    if last >= storage.count:
      raise ValueError(f"number {last} of a storage of {storage.count}")
    # A plain array: of a memory map as_strided loses the file.
    numbers = np.asarray(held[: storage.count * size]).view(storage.dtype)
    return np.lib.stride_tricks.as_strided(
      numbers[offset:], shape, [size * n for n in strides], writeable=False
    )

  def _storage(self, storage: torch_pickle.Storage) -> np.ndarray:
    name = f"{self._root}/data/{storage.key}"
    if name not in self._held:
      if name not in self._records:
        raise ValueError(f"no record {name}")
      self._held[name] = self._bytes(self._records[name])
    held = self._held[name]
    if len(held) < storage.count * storage.dtype.itemsize:
      raise ValueError(f"{len(held)} bytes in {name}, too few")
    return held

  def _bytes(self, info: zipfile.ZipInfo) -> np.ndarray:
    """A record as a memory map."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
      raise _damaged(self._path, f"{info.filename} is compressed or encrypted")
    with open(self._path, "rb") as file:
      size = file.seek(0, os.SEEK_END)
      inside = 0 <= info.header_offset < size
      file.seek(info.header_offset if inside else size)
      header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
      raise _damaged(self._path, f"no {info.filename} where it should be")
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + name_bytes + extra_bytes
    if start + info.file_size > size:
      raise _damaged(self._path, f"{info.filename} ends after the file")
    if not info.file_size:
      return np.zeros(0, np.uint8)
    held = np.memmap(self._path, np.uint8, "r", start, (info.file_size,))
    if self._verify and zlib.crc32(held.data) != info.CRC:
      raise _damaged(
        self._path,
        f"{info.filename} has another checksum than was noted; or was it saved"
        " with torch.serialization.set_crc32_options(False)?",
      )
    return held


def write(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
  """Writes a file that torch.load(weights_only=True) opens, atomically.

  Floats are written as float32; whole numbers and truth values as they are.
  """
  with artifacts.replacing(pathlib.Path(path)) as file:
    write_to(file, values)


def write_to(
  file: BinaryIO | None,
  values: Mapping[str, Any],
  *,
  transposed: tuple[str, ...] = (),
  check: Callable[[str, np.ndarray], None] = lambda name, rows: None,
) -> None:
  """What `write` writes, a block of rows at a time, from wherever arrays lie.

  Every process that holds a part of an array must call this.

  Args:
    file: an empty file open for binary writing; None in the processes that
      only hold parts.
    values: arrays of numpy or JAX (split over their first axis at most), plain
      values, and dicts of them.
    transposed: names of matrices that torch is to see transposed. Their rows
      are written as they are: torch's tensors have strides.
    check: called with (name, rows) of every block before it is written.
  """
  writer = torch_dump.Writer(transposed)
  pickle = b"\x80\x02" + writer.pickled(values, outermost=True) + b"."
  with contextlib.ExitStack() as stack:
    archive = None
    if file is not None:
      archive = stack.enter_context(zipfile.ZipFile(file, "w"))

    def record(name: str) -> Any:
      if archive is None or file is None:
        return contextlib.nullcontext()
      return _record(archive, file, name)

    for name, data in (("data.pkl", pickle), ("byteorder", b"little")):
      with record(name) as target:
        if target is not None:
          target.write(data)
    for key, (name, array, dtype) in enumerate(writer.storages):
      flat = array if array.ndim else np.asarray(array).reshape(1)
      with record(f"data/{key}") as target:
        for _, block in streamed.row_blocks(flat, streamed.BLOCK_BYTES):
          rows = np.ascontiguousarray(block, dtype)
          check(name, rows)
          if target is not None:
            target.write(rows.data)
    with record("version") as target:
      if target is not None:
        target.write(b"3\n")


def _record(archive: zipfile.ZipFile, file: BinaryIO, name: str) -> Any:
  """A new record whose bytes begin at a multiple of `_ALIGNMENT`."""
  # A date of its own would make no two files equal.
  info = zipfile.ZipInfo(f"{_ROOT}/{name}", (1980, 1, 1, 0, 0, 0))
  zip64_bytes = 20  # what force_zip64 puts into the record's header
  start = file.tell() + 30 + len(info.filename) + zip64_bytes + 4
  padding = -start % _ALIGNMENT
  info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
  return archive.open(info, "w", force_zip64=True)
