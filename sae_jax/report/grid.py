# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables whose rows the reader can sort, with intervals drawn in the cells."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from sae_jax.report import page, scores


@dataclasses.dataclass(frozen=True)
class Head:
  """A column."""

  text: str
  number: bool = dataclasses.field(default=False, kw_only=True)
  bar: bool = dataclasses.field(default=False, kw_only=True)
  note: bool = dataclasses.field(default=False, kw_only=True)  # small, soft
  wide: bool = dataclasses.field(default=False, kw_only=True)
  group: str = dataclasses.field(default="", kw_only=True)  # a heading above


@dataclasses.dataclass(frozen=True)
class Cell:
  """A value; numbers sort by `sort`, others by their text."""

  text: str
  _: dataclasses.KW_ONLY
  sort: float | None = None
  href: str = ""
  note: str = ""
  strong: bool = False
  tone: str = ""  # "up" | "down" | "quiet", or a verdict
  bar: Mapping[str, float] | None = None
  tip: str = ""  # what the reader sees pointing at a bar
  chip: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
  """Cells in the order of the columns."""

  cells: Sequence[Cell]
  _: dataclasses.KW_ONLY
  quiet: bool = False
  last: bool = False  # stays below however the others are sorted
  id: str = ""


def block(
  heads: Sequence[Head], rows: Sequence[Row], *, first: int = 0
) -> page.Block:
  """A table; of more than `first` rows the rest is shown on demand."""
  groups = [
    (name, len(list(some)))
    for name, some in itertools.groupby(head.group for head in heads)
  ]
  return {
    "kind": "grid",
    "groups": groups if len(groups) > 1 else [],
    "heads": list(heads),
    "rows": list(rows),
    "first": first if first and len(rows) > first else 0,
  }


def verdict(name: str | None) -> Cell:
  """A verdict, marked."""
  return Cell(name or "–", tone=name or "", chip=bool(name))


def shaded(value: float | None, largest: float, digits: int) -> dict[str, str]:
  """A cell that is shaded by its share of the table's largest value."""
  shade = abs(value) / largest if value is not None and largest else 0.0
  return {
    "text": scores.fixed(value, digits, sign=True),
    "sign": "up" if (value or 0) >= 0 else "down",
    "shade": f"{shade:.2f}",
  }
