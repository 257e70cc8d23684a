# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every latent that a screen tried, ranked; and effects by topic."""

from collections.abc import Sequence
from typing import Any

from sae_jax.report import (
  grid,
  page,
  say,
  scores,
  steer_beside,
  steer_words,
)
from sae_jax.report.findings import Finding
from sae_jax.report.steer_words import Row

_MOST, _FIRST = 200, 20  # rows in the page, and those shown unasked
_TOPICS = 12  # rows of the table by topic


def section(finding: Finding) -> page.Section:
  singles = steer_words.strongest(steer_words.kind(finding, "latent"))
  blocks: list[page.Block] = []
  if singles:
    shown = singles[:_MOST]
    own = {row["name"] for row in carded(finding)}
    axis = steer_beside.axes(finding, shown)
    rest = ""
    if len(singles) > _MOST:
      rest = f" The first {_MOST} of {len(singles):,}; all stand in"
      rest += " screen.parquet."
    blocks += [
      page.text(
        "Causal ones first, then by the smaller of the two effects; press a"
        " heading to sort by it, point at a bar to read it. “Of shift” is the"
        " share of the whole shift that is made up or taken back, “damage” is"
        f" what both answers lost together, nats per token.{rest}"
      ),
      grid.block(
        _heads(finding),
        [
          _row(finding, row, place, axis, carded=row["name"] in own)
          for place, row in enumerate(shown, 1)
        ],
        first=_FIRST,
      ),
    ]
  else:
    blocks.append(page.missing("No single latents were screened."))
  return page.Section(
    id=f"{finding.prefix}table",
    title="Ranked by effect",
    blocks=[*blocks, *_topics(finding)],
  )


def _heads(finding: Finding) -> list[grid.Head]:
  heads = [
    grid.Head("#", number=True),
    grid.Head("latent", wide=True),
    grid.Head("verdict"),
  ]
  for way in steer_words.WAYS:
    heads += steer_beside.heads(finding, way)
    group = heads[-1].group
    heads += [
      grid.Head("strength", number=True, group=group),
      grid.Head("damage", number=True, group=group),
    ]
  return [*heads, grid.Head("# in diff", number=True)]


def _row(
  finding: Finding,
  row: Row,
  place: int,
  axis: dict[str, tuple[float, float]],
  *,
  carded: bool,
) -> grid.Row:
  known = finding.reference(row["latents"][0])
  own = f"#{finding.prefix}{steer_beside.anchor(row)}" if carded else ""
  cells = [
    grid.Cell(f"{place}", sort=place),
    grid.Cell(
      str(row["latents"][0]),
      sort=row["latents"][0],
      href=known["href"] or own,
      note=known["reading"],
    ),
    grid.verdict(row.get("verdict")),
  ]
  for way in steer_words.WAYS:
    found = row.get(way) or {}
    damage, strength = found.get("damage"), found.get("strength")
    cells += steer_beside.cells(finding, row, way, axis[way])
    cells += [
      grid.Cell(say.number(strength, 2), sort=strength),
      grid.Cell(scores.fixed(damage, 3, sign=True), sort=damage),
    ]
  rank = (row.get("diff") or {}).get("rank")
  cells.append(grid.Cell("–" if rank is None else f"{rank:,}", sort=rank))
  return grid.Row(cells, quiet=row.get("verdict") == "inert")


def carded(finding: Finding) -> Sequence[Row]:
  """Bundles, directions, and the strongest latents without another card."""
  singles = [
    row
    for row in steer_words.strongest(steer_words.kind(finding, "latent"))
    if not finding.reference(row["latents"][0])["href"]
  ]
  causal = [row for row in singles if row.get("verdict") == "causal"]
  rest = [row for row in singles if row.get("verdict") != "causal"]
  return [
    *steer_words.strongest(steer_words.kind(finding, "bundle")),
    *steer_words.kind(finding, "direction"),
    *causal[:24],
    *rest[: max(0, 8 - len(causal))],
  ]


def _topics(finding: Finding) -> list[page.Block]:
  """Whether an effect holds across topics or in one of them."""
  topics = (finding.found.get("prompts") or {}).get("topics") or ()
  if len(topics) < 2:
    return []
  rows = [
    *steer_words.strongest(steer_words.kind(finding, "bundle")),
    *steer_words.kind(finding, "direction"),
    *steer_words.strongest(steer_words.kind(finding, "latent")),
  ][:_TOPICS]
  blocks: list[page.Block] = [
    page.heading("By topic"),
    page.text(
      "Mean change of the margin on the pairs of each topic, at the chosen"
      " strength. What holds on one topic alone is no persona."
    ),
  ]
  tables = [
    found
    for way in steer_words.WAYS
    if (found := _by_topic(finding, rows, way, topics)) is not None
  ]
  return [*blocks, {"kind": "by_topic", "tables": tables}] if tables else []


def _by_topic(
  finding: Finding, rows: Sequence[Row], way: str, topics: Sequence[str]
) -> dict[str, Any] | None:
  shown = [row for row in rows if (row.get(way) or {}).get("topics")]
  values = [
    [scores.mean(row[way]["topics"].get(topic)) for topic in topics]
    for row in shown
  ]
  known = [v for line in values for v in line if v is not None]
  if not known:
    return None
  largest, digits = max(map(abs, known)), scores.decimals(known)
  words = steer_words.act(finding, way)
  return {
    "title": f"{words[:1].upper()}{words[1:]}",
    "heads": list(topics),
    "rows": [
      {
        "name": steer_words.title(row),
        "cells": [grid.shaded(value, largest, digits) for value in line],
      }
      for row, line in zip(shown, values, strict=True)
    ],
  }
