# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads what the evaluate job wrote about a dictionary. Only reads."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from sae_jax import artifacts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """A directory of the evaluate job."""

  path: pathlib.Path
  config: dict[str, Any] | None  # config.json
  metrics: dict[str, Any]  # metrics.json
  arrays: dict[str, np.ndarray] | None  # density.npz
  contexts: dict[str, Any] | None  # contexts.json

  @property
  def data(self) -> str:
    """Equal for evaluations at one hook of the same store."""
    inputs = (self.config or {}).get("inputs") or {}
    return data(
      self.metrics.get("hook"), {k: v for k, v in inputs.items() if k != "sae"}
    )


def data(hook: str | None, stores: dict[str, Any]) -> str:
  """Names what rows are of; variances of other rows are other variances."""
  return json.dumps([hook, stores], sort_keys=True)


def is_evaluation(path: pathlib.Path) -> bool:
  return (path / "metrics.json").is_file()


def read(path: pathlib.Path) -> Evaluation:
  """Reads what there is.

  Raises:
    errors.InputError: a file is not JSON.
  """
  arrays = None
  if (path / "density.npz").is_file():
    with np.load(path / "density.npz", allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  return Evaluation(
    path=path,
    config=artifacts.read_json(path / "config.json"),
    metrics=artifacts.read_json(path / "metrics.json"),
    arrays=arrays,
    contexts=artifacts.read_json(path / "contexts.json"),
  )


def named_paths(evaluation: Evaluation) -> set[pathlib.Path]:
  """Whatever its config may mean by a path, resolved."""
  return {
    pathlib.Path(text).expanduser().resolve()
    for text in _strings(evaluation.config)
    if text
  }


def _strings(value: Any) -> Iterator[str]:
  if isinstance(value, str):
    yield value
  elif isinstance(value, dict):
    for item in value.values():
      yield from _strings(item)
  elif isinstance(value, list):
    for item in value:
      yield from _strings(item)
