# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page shell and its building blocks: sections, tiles, tables, figures.

A page is a list of sections, a section a list of blocks; templates and style
lie in assets/. Everything that is shown is escaped by the templates.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import plotly.offline

from sae_jax import version

_ASSETS = pathlib.Path(__file__).parent / "assets"
_STYLES = ("page.css", "diff.css", "findings.css", "sweep.css")

Block = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
  """A heading with an anchor, and what stands under it."""

  id: str
  title: str
  blocks: list[Block]
  group: str = ""  # what it belongs to, where a page is about several things


@dataclasses.dataclass(frozen=True)
class Tile:
  """One headline figure."""

  label: str
  value: str
  note: str = ""
  raw: float | None = None  # what the value is written from


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
  """A plot with its caption; `spec` is plotly's {"data", "layout"}.

  A click on a point whose customdata is n goes to the anchor `jump` + n, where
  `jump` is given and the page has that anchor.
  """

  title: str
  caption: str
  spec: dict[str, Any]
  height: int = 220
  jump: str = ""


def text(words: str) -> Block:
  return {"kind": "text", "text": words}


def heading(words: str) -> Block:
  return {"kind": "heading", "text": words}


def tiles(items: Sequence[Tile]) -> Block:
  return {"kind": "tiles", "tiles": list(items)}


def figures(items: Sequence[Figure], *, wide: bool = False) -> Block:
  return {"kind": "figures", "figures": list(items), "wide": wide}


def table(
  rows: Sequence[Sequence[str]],
  head: Sequence[str] | None = None,
  *,
  numbers: bool = False,
) -> Block:
  """Rows that begin with their name; `numbers` are aligned to the right."""
  return {
    "kind": "table",
    "rows": list(rows),
    "head": head,
    "numbers": numbers,
  }


def missing(words: str, command: str = "") -> Block:
  """Says what is not there and which command makes it."""
  return {"kind": "missing", "text": words, "command": command}


def unfinished(job: str, name: str, path: pathlib.Path) -> Block:
  """Says that a job has not written everything yet."""
  return missing(
    f"{name} is not finished: it has no manifest.json yet. The same command"
    " again goes on where it stopped.",
    f"sae-jax {job} --config=FILE.py --out={path}",
  )


def fold(title: str, blocks: Sequence[Block]) -> Block:
  """Blocks that few want to see, folded away."""
  return {"kind": "fold", "title": title, "blocks": list(blocks)}


def fold_json(title: str, value: Any) -> Block:
  """A value that few want to see, folded away."""
  return {
    "kind": "json",
    "title": title,
    "text": json.dumps(value, indent=2, ensure_ascii=False),
  }


def render(*, title: str, lead: str, sections: Sequence[Section]) -> str:
  """The whole page; plotly is in it once, if any section has a figure."""
  with_figures = any(
    block["kind"] == "figures" and block["figures"]
    for section in sections
    for block in section.blocks
  )
  return (
    _environment()
    .get_template("page.html")
    .render(
      title=title,
      lead=lead,
      sections=sections,
      navigation=[
        (group, list(some))
        for group, some in itertools.groupby(sections, lambda s: s.group)
      ],
      style="".join(map(_asset, _STYLES)),
      script=_asset("page.js"),
      plotly=plotly.offline.get_plotlyjs() if with_figures else "",
      footer=f"Made by sae_jax {version.__version__}; needs no network.",
    )
  )


def _asset(name: str) -> str:
  return (_ASSETS / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(_ASSETS),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
