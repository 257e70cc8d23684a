# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What steering did, on a card: curves both ways, chance, answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax.report import (
  diff_words,
  page,
  say,
  scores,
  sketch,
  steer_beside,
  steer_samples,
  steer_table,
  steer_words,
)
from sae_jax.report.findings import Finding
from sae_jax.report.steer_words import Row

_EXAMPLES = 2  # answers on a card, per model


def section(finding: Finding) -> page.Section:
  """Cards of what has none elsewhere on the page."""
  rows = steer_table.carded(finding)
  elsewhere = len(finding.by_latent) and finding.links
  words = "Curves both ways beside chance (grey), and sampled answers."
  if elsewhere:
    words += f" Latents that {finding.of} has cards of are described there."
  blocks: list[page.Block] = [
    page.text(words),
    {"kind": "steer_cards", "cards": [_card(finding, row) for row in rows]},
  ]
  return page.Section(
    id=f"{finding.prefix}cards", title="Interventions", blocks=blocks
  )


def _card(finding: Finding, row: Row) -> dict[str, Any]:
  diff = row.get("diff") or {}
  notes = [what] if (what := steer_words.what(row)) else []
  if diff.get("rank") is not None:
    notes.append(f"rank {diff['rank']:,} in the diff")
    notes.append("changed" if diff.get("changed") else "not changed")
  if row["kind"] == "bundle" and row.get("latents"):
    shown = [str(n) for n in row["latents"][:12]]
    more = len(row["latents"]) - len(shown)
    notes.append(
      f"latents {', '.join(shown)}" + (f" and {more} more" if more else "")
    )
  return {
    "id": f"{finding.prefix}{steer_beside.anchor(row)}",
    "title": steer_words.title(row),
    "notes": notes,
    "steered": steered(finding, row),
  }


def steered(finding: Finding, row: Row) -> dict[str, Any]:
  """The part about steering, on a card of the screen or of its diff."""
  return {
    "screen": f"#{finding.prefix}verdict",
    "verdict": row.get("verdict") or "",
    "ways": steer_words.ways(row),
    "why": row.get("why") or "",
    "panels": [
      panel
      for way in steer_words.WAYS
      if (panel := _panel(finding, row, way)) is not None
    ],
    "samples": [
      {
        "title": steer_samples.title(finding, found),
        "examples": steer_samples.examples(found, _EXAMPLES),
      }
      for found in steer_samples.rows_of(finding, row)
      if found.get("examples")
    ],
  }


def _panel(finding: Finding, row: Row, way: str) -> dict[str, Any] | None:
  """One direction's curve with its figures."""
  found: Mapping[str, Any] = row.get(way) or {}
  if not found:
    return None
  model = "base" if way == "up" else "tuned"
  start = (finding.found.get("unsteered") or {}).get(model) or {}
  facts = [
    ("effect", scores.with_bounds(found.get("effect"))),
    (
      "of the shift",
      scores.percent(steer_words.share(finding, row, way)),
    ),
    ("z", diff_words.signed(found.get("z"), 2)),
    ("at strength", say.number(found.get("strength"), 2)),
    ("P(behaviour)", _arrow(start, found, "p_behaviour")),
    ("P(contrast)", _arrow(start, found, "p_contrast")),
  ]
  return {
    "title": steer_words.act(finding, way),
    "sketch": sketch.curve(
      _points(found.get("curve") or ()),
      _band(steer_words.band(finding, row), way),
      chosen=found.get("strength"),
    ),
    "facts": facts,
  }


def _arrow(start: Mapping[str, Any], found: Mapping[str, Any], key: str) -> str:
  return f"{scores.chance(start.get(key))} → {scores.chance(found.get(key))}"


def _points(curve: Sequence[Mapping[str, Any]]) -> list[sketch.Point]:
  return [
    sketch.Point(
      x=p["strength"],
      y=p["effect"],
      low=p["effect"] if p.get("ci_low") is None else p["ci_low"],
      high=p["effect"] if p.get("ci_high") is None else p["ci_high"],
      words=f"strength {p['strength']:g}: margin"
      f" {scores.with_bounds(steer_words.score(p))}",
    )
    for p in curve
  ]


def _band(
  found: Mapping[str, Any] | None, way: str
) -> list[tuple[float, float, float]]:
  return [
    (row["strength"], row["low"], row["high"])
    for row in (found or {}).get(way) or ()
    if row.get("low") is not None and row.get("high") is not None
  ]
