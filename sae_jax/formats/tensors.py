# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Tensors of foreign files by name: .safetensors, .npz and .pt.

Floats of any width become float32; whole numbers stay what they are. Nothing
is unpickled but what `torch_file` allows.
"""

import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from sae_jax import errors
from sae_jax.formats import memory_maps, torch_file


def shapes(path: pathlib.Path) -> dict[str, tuple[int, ...]]:
  """The shapes of the file's tensors by name, without reading them.

  Empty for what is not one of these files, or is damaged.
  """
  try:
    if path.suffix == ".safetensors":
      found = memory_maps.tensors(path, integers=True)
      return {name: array.shape for name, array in found.items()}
    if path.suffix == ".npz":
      return _npz_shapes(path)
    if path.suffix in (".pt", ".pth", ".bin"):
      found = torch_file.read(path, verify=False)
      return {name: np.shape(array) for name, array in found.items()}
  except (errors.InputError, OSError, ValueError, KeyError, TypeError):
    return {}
  return {}


def read(path: pathlib.Path) -> dict[str, Any]:
  """Every tensor of the file; of a .pt also the plain values beside them.

  Raises:
    errors.InputError: there is no such file, it is damaged, or it holds what
      is not a tensor of numbers.
  """
  if not path.is_file():
    raise errors.InputError(f"{path}: no such file")
  if path.suffix == ".safetensors":
    found: Mapping[str, Any] = memory_maps.tensors(path, integers=True)
  elif path.suffix == ".npz":
    found = _read_npz(path)
  else:
    found = torch_file.read(path)
  return {name: as_float32(value) for name, value in found.items()}


def as_float32(value: Any) -> Any:
  """An array of floats as float32; anything else as it is."""
  if isinstance(value, np.ndarray) and value.dtype.kind not in "iub":
    return np.asarray(value, np.float32)
  return value


def check_shapes(
  path: pathlib.Path,
  found: Mapping[str, Any],
  shapes: Mapping[str, tuple[int, ...]],
) -> None:
  """Refuses arrays that are missing or of another shape.

  Raises:
    errors.InputError: see above; it names the array.
  """
  missing = sorted(set(shapes) - set(found))
  if missing:
    raise errors.InputError(
      f"{path} has no {', '.join(missing)}; it holds"
      f" {', '.join(sorted(found)) or 'nothing'}"
    )
  for name, shape in shapes.items():
    if np.shape(found[name]) != shape:
      raise errors.InputError(
        f"{path}: {name} has the shape {np.shape(found[name])}; the other"
        f" arrays ask for {shape}"
      )


def matrix_shape(
  path: pathlib.Path, found: Mapping[str, Any], name: str
) -> tuple[int, int]:
  """Rows and columns of the array `name`.

  Raises:
    errors.InputError: there is none, or it is no matrix.
  """
  check_shapes(path, found, {name: np.shape(found.get(name, ()))})
  shape = np.shape(found[name])
  if len(shape) != 2 or 0 in shape:
    raise errors.InputError(
      f"{path}: {name} has the shape {shape}, which is no matrix"
    )
  return shape[0], shape[1]


def sizes(
  path: pathlib.Path, found: Mapping[str, Any], name: str
) -> tuple[int, int, int]:
  """The three axes of the array `name`.

  Raises:
    errors.InputError: it has another number of axes.
  """
  shape = np.shape(found[name])
  if len(shape) != 3 or 0 in shape:
    raise errors.InputError(
      f"{path}: {name} has the shape {shape}; it should have three axes"
    )
  return shape


def check_finite(where: Any, arrays: Mapping[str, Any]) -> None:
  """Refuses NaN and infinity.

  Raises:
    errors.InputError: it names the array.
  """
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      raise errors.InputError(f"{where}: {name} holds NaN or infinity")


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    with np.load(path, allow_pickle=False) as archive:
      return {name: archive[name] for name in archive.files}
  except (OSError, ValueError, zipfile.BadZipFile) as error:
    raise errors.InputError(f"{path} is not a complete npz: {error}") from None


def _npz_shapes(path: pathlib.Path) -> dict[str, tuple[int, ...]]:
  found = {}
  try:
    with zipfile.ZipFile(path) as archive:
      for name in archive.namelist():
        with archive.open(name) as member:
          version = np.lib.format.read_magic(member)
          read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
          }[version]
          found[name.removesuffix(".npy")] = read_header(member)[0]
  except zipfile.BadZipFile:
    return {}
  return found
