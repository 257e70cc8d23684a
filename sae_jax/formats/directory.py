# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A dictionary as two files: its weights, and a JSON that is written last."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO

import jax
import numpy as np

from sae_jax import artifacts, errors


def write(
  path: str | os.PathLike[str],
  *,
  weights: str,
  write_weights: Callable[[BinaryIO | None], None],
  config: str,
  values: dict[str, Any],
) -> None:
  """Replaces what is in `path`, atomically file by file.

  Every process calls this and the first one writes. A dictionary that is in
  `path` loses its config before its weights.

  Args:
    path: the directory; it is made when it does not exist.
    weights: name of the file of weights.
    write_weights: writes them; called with None in the other processes.
    config: name of the JSON file.
    values: what is in it.
  """
  path = pathlib.Path(path)
  if jax.process_index():
    write_weights(None)
    return
  path.mkdir(parents=True, exist_ok=True)
  with artifacts.replacing(path / weights) as file:
    write_weights(file)
    # Only now: until here, what was in `path` is whole.
    (path / config).unlink(missing_ok=True)
  artifacts.write_json_atomic(path / config, values)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON object.

  Raises:
    errors.InputError: there is no such file, or it holds something else.
  """
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise errors.InputError(f"{path}: no such file") from None
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise errors.InputError(f"{path} is not JSON: {error}") from None
  if not isinstance(value, dict):
    raise errors.InputError(f"{path} is not a JSON object")
  return value


def check_finite(name: str, array: np.ndarray) -> None:
  """Refuses to save what is not finite; for `streamed.write`'s `check`."""
  if not np.isfinite(array).all():
    raise errors.InputError(
      f"the dictionary to save: {name} holds NaN or infinity"
    )


def check_tensors(
  tensors: dict[str, Any], shapes: dict[str, tuple[int, ...]], where: str
) -> None:
  """Checks that exactly these tensors are there, of these shapes.

  Raises:
    errors.InputError: naming `where` and what is missing, too much or wrong.
  """
  missing = sorted(set(shapes) - set(tensors))
  extra = sorted(set(tensors) - set(shapes))
  if missing or extra:
    raise errors.InputError(
      f"{where}: this kind of dictionary has the tensors {sorted(shapes)};"
      f" missing: {missing}, not understood: {extra}"
    )
  for name, shape in shapes.items():
    if tensors[name].shape != shape:
      raise errors.InputError(
        f"{where}: {name} has shape {tensors[name].shape}, but its config says"
        f" {shape}"
      )
