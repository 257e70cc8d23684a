# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Arrays of any size to a safetensors file, a block of rows at a time.

Reads arrays wherever they lie: on the host, on devices, on the devices of
several processes. No host and no device holds more of one than its own part of
it and a block. The bytes are those that `safetensors.numpy.save` gives.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Rows of 4,096 float32: 8,192 to a block, so that a transposed matrix is
# written in runs of 32 KiB.
BLOCK_BYTES = 128 << 20


def write(
  file: BinaryIO | None,
  arrays: Mapping[str, Any],
  *,
  transposed: tuple[str, ...],
  check: Callable[[str, np.ndarray], None],
  block_bytes: int | None = None,
) -> None:
  """Writes `arrays` to a new file as float32.

  Every process that holds a part of an array must call this.

  Args:
    file: an empty file open for binary writing; None in the processes that
      only hold parts.
    arrays: by name; numpy arrays, or JAX's, split over their first axis at
      most.
    transposed: names of matrices that are written transposed.
    check: called with (name, rows) of every block before it is written, the
      same in every process; what it raises ends the writing.
    block_bytes: how much of an array is on this host at a time; default
      `BLOCK_BYTES`.
  """
  shapes = {
    name: array.shape[::-1] if name in transposed else array.shape
    for name, array in arrays.items()
  }
  header, starts = _layout(shapes)
  if file is not None:
    file.write(header)
  for name in shapes:
    rows_in_all = arrays[name].shape[0]
    for first, block in row_blocks(arrays[name], block_bytes or BLOCK_BYTES):
      rows = np.asarray(block, np.float32)
      check(name, rows)
      if file is None:
        continue
      if name in transposed and len(rows) < rows_in_all:
        _write_columns(file, starts[name], rows_in_all, first, rows)
        continue
      row_bytes = rows[:1].nbytes
      file.seek(starts[name] + first * row_bytes)
      rows = rows.T if name in transposed else rows
      file.write(np.ascontiguousarray(rows).data)


def _layout(
  shapes: Mapping[str, tuple[int, ...]],
) -> tuple[bytes, dict[str, int]]:
  """The file's header, and where each tensor's bytes start."""
  entries, offsets, end = {}, {}, 0
  for name in sorted(shapes):
    start, end = end, end + 4 * int(np.prod(shapes[name]))
    offsets[name] = start
    entries[name] = {
      "dtype": "F32",
      "shape": list(shapes[name]),
      "data_offsets": [start, end],
    }
  text = json.dumps(entries, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)
  header = len(text).to_bytes(8, "little") + text
  return header, {name: len(header) + at for name, at in offsets.items()}


def _write_columns(
  file: BinaryIO, start: int, width: int, first: int, rows: np.ndarray
) -> None:
  """Columns `first` … of a row-major matrix of `width` columns."""
  for i, run in enumerate(np.ascontiguousarray(rows.T)):
    file.seek(start + 4 * (i * width + first))
    file.write(run.data)


def row_blocks(
  array: Any, block_bytes: int
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (first row, rows) that cover an array once, rows ascending.

  Of an array on several processes, all of them must go through all blocks;
  each gets the same.
  """
  rows = max(1, block_bytes * len(array) // max(1, array.nbytes))
  for start, length, read in _parts(array):
    for first in range(0, length, rows):
      yield start + first, read(first, min(rows, length - first))


_Part = tuple[int, int, Callable[[int, int], np.ndarray]]


def _parts(array: Any) -> list[_Part]:
  """(first row, rows, read(first, count)) of every part that lies together."""
  length = len(array)
  if not isinstance(array, jax.Array):
    whole = np.asarray(array)
    return [(0, length, lambda first, count: whole[first : first + count])]
  if array.is_fully_addressable or array.is_fully_replicated:
    held = {
      shard.index[0].indices(length)[0]: shard.data
      for shard in array.addressable_shards
    }
    return [
      (start, len(held[start]), functools.partial(_read, held[start]))
      for start in sorted(held)
    ]
  count = array.sharding.num_devices // _copies(array)
  size = length // count
  return [
    (i * size, size, functools.partial(_fetch, array, i)) for i in range(count)
  ]


def _copies(array: jax.Array) -> int:
  """How many devices hold each row."""
  held = array.sharding.devices_indices_map(array.shape).values()
  starts = [index[0].indices(len(array))[0] for index in held]
  return starts.count(0)


def _read(part: jax.Array, first: int, count: int) -> np.ndarray:
  # A slice of its own: JAX would keep a host copy of the whole part.
  return np.asarray(_slice(part, first, count))


@functools.partial(jax.jit, static_argnums=2)
def _slice(part, first, count):
  return lax.dynamic_slice_in_dim(part, first, count)


def _fetch(array: jax.Array, part: int, first: int, count: int) -> np.ndarray:
  """Rows of one part, sent to all devices."""
  block = _sender(array.sharding, count)(array, np.int32(part), np.int32(first))
  return np.asarray(block.addressable_data(0))


@functools.cache
def _sender(sharding: jax.NamedSharding, count: int):
  """`send(array, part, first)`: only the block itself crosses the network.

  XLA would gather the whole array to slice it along the axis it is split over.
  """
  axes = sharding.spec[0]

  def send(rows, part, first):
    block = lax.dynamic_slice_in_dim(rows, first, count)
    # As integers: a sum of floats would turn -0 into 0.
    bits = lax.bitcast_convert_type(block, jnp.uint32)
    bits = jnp.where(lax.axis_index(axes) == part, bits, jnp.uint32(0))
    sent = lax.psum(bits, axes)
    return lax.bitcast_convert_type(sent, block.dtype)

  return jax.jit(
    jax.shard_map(
      send,
      mesh=sharding.mesh,
      in_specs=(sharding.spec, jax.P(), jax.P()),
      out_specs=jax.P(),
      check_vma=False,
    )
  )
