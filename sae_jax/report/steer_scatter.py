# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every candidate at once: its effect when added against when removed."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax.report import (
  diff_words,
  page,
  plots,
  scores,
  steer_beside,
  steer_words,
)
from sae_jax.report.findings import Finding
from sae_jax.report.steer_words import Row

MOST_INERT = 1500  # drawn; a browser takes some 50 ms for 2,500 marks


@dataclasses.dataclass(frozen=True)
class _Look:
  """How the marks of one kind are drawn."""

  name: str
  colour: str
  symbol: str
  size: int
  opacity: float


_VERDICTS = (
  _Look("inert", "var(--soft)", "circle", 5, 0.4),
  _Look("correlated", "var(--c4)", "circle", 7, 0.8),
  _Look("causal", "var(--c3)", "diamond", 11, 0.95),
)
_KINDS = {
  "bundle": _Look("bundles", "var(--c1)", "square", 10, 0.95),
  "direction": _Look("directions", "var(--c2)", "cross", 10, 0.95),
}


def section(finding: Finding) -> page.Section:
  rows = [row for row in _all(finding) if _measured(row)]
  if not rows:
    blocks: list[page.Block] = [
      page.missing("No intervention was measured in both directions.")
    ]
  else:
    blocks = [
      page.text(
        "Every mark is an intervention at its chosen strengths. A cause lies to"
        " the lower right: added to the base it raises the margin,"
        f" {steer_words.removed(finding)} the tuned model it lowers it. Inside"
        " the box is what random latents do. Click a latent to read its card."
      ),
      page.figures([_figure(finding, rows)], wide=True),
    ]
  return page.Section(
    id=f"{finding.prefix}scatter", title="All candidates", blocks=blocks
  )


def _all(finding: Finding) -> Sequence[Row]:
  return finding.found.get("interventions") or ()


def _measured(row: Row) -> bool:
  return all(
    steer_words.effect(row, way) is not None for way in steer_words.WAYS
  )


def _figure(finding: Finding, rows: Sequence[Row]) -> page.Figure:
  singles = [row for row in rows if row["kind"] == "latent"]
  traces, drawn = [], 0
  for look in _VERDICTS:
    some = [row for row in singles if row.get("verdict") == look.name]
    if look.name == "inert" and len(some) > MOST_INERT:
      rng = np.random.default_rng(0)
      chosen = np.sort(rng.choice(len(some), MOST_INERT, replace=False))
      some = [some[i] for i in chosen]
    drawn += len(some)
    traces.append(_trace(finding, some, look))
  for kind, look in _KINDS.items():
    some = [row for row in rows if row["kind"] == kind]
    traces.append(_trace(finding, some, look))
  caption = f"{diff_words.plural(len(singles), 'latent')}"
  if drawn < len(singles):
    caption += f", of the inert ones a random {MOST_INERT:,}"
  layout = plots.layout(
    x={
      "title": plots.title(f"{steer_words.act(finding, 'up')}: margin"),
      "zeroline": True,
      "zerolinecolor": "var(--rule)",
    },
    y={
      "title": plots.title(f"{steer_words.act(finding, 'down')}: margin"),
      "zeroline": True,
      "zerolinecolor": "var(--rule)",
    },
    legend=True,
    hovermode="closest",
    shapes=_box(finding),
  )
  layout["margin"]["l"] = 68
  return page.Figure(
    title=f"Added against {steer_words.verb(finding, 'down')}",
    caption=caption,
    height=440,
    spec={"data": [t for t in traces if t["x"]], "layout": layout},
    jump=finding.prefix,
  )


def _box(finding: Finding) -> list[dict[str, Any]]:
  """What random latents reach, both ways."""
  bands = finding.found.get("bands") or {}
  if "latent" not in bands:
    return []
  (x0, x1), (y0, y1) = (
    steer_words.reach(bands["latent"], way) for way in steer_words.WAYS
  )
  return [
    {
      "type": "rect",
      "layer": "below",
      "x0": x0,
      "x1": x1,
      "y0": y0,
      "y1": y1,
      "fillcolor": "var(--shade)",
      "line": {"color": "var(--soft)", "width": 1, "dash": "dot"},
    }
  ]


def _trace(
  finding: Finding, rows: Sequence[Row], look: _Look
) -> dict[str, Any]:
  return {
    "type": "scatter",
    "mode": "markers",
    "name": look.name,
    "x": plots.short(steer_words.effect(row, "up") or 0.0 for row in rows),
    "y": plots.short(steer_words.effect(row, "down") or 0.0 for row in rows),
    "customdata": [_target(finding, row) for row in rows],
    "text": [_hover(finding, row) for row in rows],
    "hovertemplate": "%{text}<extra></extra>",
    "cliponaxis": False,
    "marker": {
      "color": look.colour,
      "symbol": look.symbol,
      "size": look.size,
      "opacity": look.opacity,
    },
  }


def _target(finding: Finding, row: Row) -> str:
  """The anchor after the screen's prefix; another's begins with "#"."""
  if row["kind"] == "latent":
    href = finding.reference(row["latents"][0])["href"]
    if href:
      return href
  return steer_beside.anchor(row)


def _hover(finding: Finding, row: Row) -> str:
  reading = ""
  if row["kind"] == "latent":
    reading = finding.reference(row["latents"][0])["reading"]
  lines = [plots.shorten(reading, 60)] if reading else []
  for way in steer_words.WAYS:
    found = row.get(way) or {}
    lines.append(
      f"{steer_words.verb(finding, way)} at {found.get('strength', 0):g}:"
      f" {scores.with_bounds(found.get('effect'))}, z"
      f" {diff_words.signed(found.get('z'), 2)}"
    )
  lines.append(f"{row.get('verdict') or 'no verdict'}, {steer_words.ways(row)}")
  return plots.escaped(steer_words.title(row), *lines)
