# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The tensors of a safetensors file as memory maps: read when looked at."""

import json
import math
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from sae_jax import errors

_DTYPES = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
_INTEGERS = {"I64": np.dtype("<i8"), "I32": np.dtype("<i4")}


def tensors(
  path: pathlib.Path, *, integers: bool = False
) -> dict[str, np.ndarray]:
  """Every tensor of the file by name; of whole numbers if `integers`.

  Raises:
    errors.InputError: there is no such file, it is not a whole safetensors
      file, or a tensor in it is of another type.
  """
  dtypes = _DTYPES | _INTEGERS if integers else _DTYPES
  header, start, size = _header(path)
  spans = [_span(path, name, entry, dtypes) for name, entry in header.items()]
  end = start + max((stop for _, stop in spans), default=0)
  if end != size:
    raise _incomplete(path, f"{size} bytes, but its tensors end at {end}")
  found = {}
  for (name, entry), (first, last) in zip(header.items(), spans, strict=True):
    dtype, shape = dtypes[entry["dtype"]], tuple(entry["shape"])
    if first == last:
      found[name] = np.zeros(shape, dtype)
    else:
      found[name] = np.memmap(path, dtype, "r", start + first, shape)
  return found


def _header(path: pathlib.Path) -> tuple[dict[str, Any], int, int]:
  """The file's entries, where its tensors start, its size in bytes."""
  try:
    size = path.stat().st_size
    with open(path, "rb") as file:
      length = int.from_bytes(file.read(8), "little")
      header = json.loads(file.read(min(length, size)))
  except FileNotFoundError:
    raise errors.InputError(f"{path}: no such file") from None
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise _incomplete(path, str(error)) from None
  if not isinstance(header, dict):
    raise _incomplete(path, "its header is not a JSON object")
  header.pop("__metadata__", None)
  return header, 8 + length, size


def _span(
  path: pathlib.Path, name: str, entry: Any, dtypes: dict[str, np.dtype]
) -> tuple[int, int]:
  """Where the bytes of a tensor lie; its header entry is checked."""
  match entry:
    case {
      "dtype": str(dtype),
      "shape": [*shape],
      "data_offsets": [int(first), int(last)],
    } if all(type(n) is int and n >= 0 for n in shape):
      pass
    case _:
      raise _incomplete(path, f"its header says {entry!r} of {name}")
  if dtype not in dtypes:
    raise errors.InputError(
      f"{path}: {name} is of type {dtype}; understood: {', '.join(dtypes)}"
    )
  if first < 0 or last - first != dtypes[dtype].itemsize * math.prod(shape):
    raise _incomplete(
      path, f"{name} of shape {shape} in bytes {first} to {last}"
    )
  return first, last


def _incomplete(path: pathlib.Path, why: str) -> errors.InputError:
  return errors.InputError(f"{path} is not a complete safetensors file: {why}")
