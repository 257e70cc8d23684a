# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""screen.parquet: a row per direction, model, strength and stage."""

import pathlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sae_jax import artifacts, errors
from sae_jax.interpret import diff_results

_TEXT = pa.dictionary(pa.int32(), pa.string())  # few values, many rows
# What a stage or kind does not know is null.
SCHEMA = pa.schema(
  [
    ("stage", _TEXT),  # "margin" or "generation"
    ("model", _TEXT),  # "base" (added) or "tuned" (removed)
    ("name", pa.string()),
    ("kind", _TEXT),  # "latent", "bundle", "direction"; "unsteered"
    ("band", _TEXT),  # the random ones it is compared with, or is one of
    ("random", pa.bool_()),
    ("latent", pa.int32()),  # of a single one
    ("sign", pa.int8()),
    ("strength", pa.float64()),  # in the screen's unit
    (
      "norm",
      pa.float64(),
    ),  # of what is added at the first hook, if it is
    ("prompts", pa.int32()),
    ("effect", pa.float64()),  # nats per token
    ("ci_low", pa.float64()),
    ("ci_high", pa.float64()),
    ("se", pa.float64()),
    ("p_behaviour", pa.float64()),
    ("p_contrast", pa.float64()),
    ("damage", pa.float64()),  # nats per token
    ("chosen", pa.bool_()),  # the strength that counts
    ("within_budget", pa.bool_()),
    ("z", pa.float64()),  # of the chosen strength
    ("outside", pa.bool_()),
    ("verdict", _TEXT),
    ("samples", pa.int32()),  # judged answers
    ("behaviour", pa.float64()),  # shares of the judged answers
    ("contrast", pa.float64()),
    ("incoherent", pa.float64()),
  ]
)
_GROUP = 1 << 14  # rows that are in memory at once


class Writer:
  """Appends rows; the file is there when all of them are."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._aside = path.with_name(f".{path.name}.tmp")
    self._file = pq.ParquetWriter(self._aside, SCHEMA, compression="zstd")
    self._rows: list[Mapping[str, Any]] = []

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: object, *_: object) -> None:
    if kind is None:
      self._flush()
    self._file.close()
    if kind is None:
      self._aside.replace(self._path)
      artifacts.sync_directory(self._path.parent)
    else:
      self._aside.unlink(missing_ok=True)

  def add(self, **row: Any) -> None:
    self._rows.append(row)
    if len(self._rows) == _GROUP:
      self._flush()

  def _flush(self) -> None:
    if self._rows:
      self._file.write_table(_table(self._rows))
      self._rows = []


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """All columns as arrays; nulls are NaN, -1, False or "".

  Raises:
    errors.InputError: there is no such file.
  """
  if not path.is_file():
    raise errors.InputError(
      f"{path}: no such table; run the sae-jax steer command to its end"
    )
  table = pq.read_table(path)
  return {
    name: diff_results.to_numpy(table[name]) for name in table.column_names
  }


def _table(rows: list[Mapping[str, Any]]) -> pa.Table:
  arrays = []
  for field in SCHEMA:
    values = [row.get(field.name) for row in rows]
    if field.type == _TEXT:
      arrays.append(pa.array(values, pa.string()).dictionary_encode())
    else:
      arrays.append(pa.array(values, field.type))
  return pa.Table.from_arrays(arrays, schema=SCHEMA)
