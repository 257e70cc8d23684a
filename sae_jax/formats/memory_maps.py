# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The tensors of a safetensors file as memory maps: read when looked at."""

import json
import pathlib

import ml_dtypes
import numpy as np

from sae_jax import errors

_DTYPES = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}


def tensors(path: pathlib.Path) -> dict[str, np.memmap]:
  """Every tensor of the file by name.

  Raises:
    errors.InputError: there is no such file, it is not a safetensors file, or
      a tensor in it is not of floats.
  """
  try:
    size = path.stat().st_size
    with open(path, "rb") as file:
      length = int.from_bytes(file.read(8), "little")
      header = json.loads(file.read(min(length, size)))
  except FileNotFoundError:
    raise errors.InputError(f"{path}: no such file") from None
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise errors.InputError(
      f"{path} is not a complete safetensors file: {error}"
    ) from None
  header.pop("__metadata__", None)
  found = {}
  for name, entry in header.items():
    start, stop = entry["data_offsets"]
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
      raise errors.InputError(
        f"{path}: {name} is of type {entry['dtype']}; floats are understood:"
        f" {', '.join(_DTYPES)}"
      )
    if 8 + length + stop > size:
      raise errors.InputError(
        f"{path} is not a complete safetensors file: {size} bytes, but {name}"
        f" ends at {8 + length + stop}"
      )
    found[name] = np.memmap(
      path, dtype, "r", 8 + length + start, tuple(entry["shape"])
    )
  return found
