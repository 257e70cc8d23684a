# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Before and after: behaviour, triggers, topics, and the watched latents."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax.report import grid, page, say, scores
from sae_jax.report.findings import Finding

_KINDS = (
  ("margin", "margin, nats per token"),
  ("p_behaviour", "P(behaviour)"),
  ("p_contrast", "P(contrast)"),
)


def triggers(finding: Finding) -> Mapping[str, Any]:
  """Base, start and end on the triggers; empty where they were not asked."""
  found = finding.found.get("triggers") or {}
  return {key: found[key] for key in ("base", "start", "end") if found.get(key)}


def trigger_count(finding: Finding) -> int | None:
  for state in triggers(finding).values():
    if isinstance(state.get("margin"), Mapping):
      return state["margin"].get("n")
  return (finding.found.get("triggers") or {}).get("n")


def states(finding: Finding) -> list[tuple[str, Mapping[str, Any]]]:
  """The base, the model before, and the model after, as they were read."""
  reference = finding.found.get("reference") or {}
  series = finding.found.get("series") or ()
  found = [("base", reference.get("base")), ("before", reference.get("start"))]
  if series:
    found.append(("after", series[-1]))
  return [(name, state) for name, state in found if state]


def behaviour(finding: Finding) -> page.Block:
  """Margin and both probabilities, on the pairs and on the triggers."""
  rows: list[tuple[str, str, Mapping[str, Any]]] = [
    (name, "pairs", state.get("behaviour") or {})
    for name, state in states(finding)
  ]
  names = {"base": "base", "start": "before", "end": "after"}
  rows += [
    (names[key], "triggers", state) for key, state in triggers(finding).items()
  ]
  heads = [grid.Head("", wide=True), grid.Head("on")]
  for _, name in _KINDS:
    heads += [
      grid.Head("mean", number=True, group=name),
      grid.Head("interval", bar=True, group=name),
    ]
  axes = {key: _axis(rows, key) for key, _ in _KINDS}
  return grid.block(heads, [_cells(*row, axes) for row in rows])


def _axis(rows: Sequence[Any], key: str) -> tuple[float, float]:
  ends = [0.0]
  for _, _, state in rows:
    score = state.get(key)
    ends += scores.bounds(score) or [scores.mean(score) or 0.0]
  return min(ends), max(ends)


def _cells(
  name: str,
  on: str,
  state: Mapping[str, Any],
  axes: Mapping[str, tuple[float, float]],
) -> grid.Row:
  cells = [grid.Cell(name, strong=name == "after"), grid.Cell(on)]
  for key, _ in _KINDS:
    score = state.get(key)
    signed = key == "margin"
    cells += [
      grid.Cell(
        scores.fixed(scores.mean(score), 3, sign=signed),
        sort=scores.mean(score),
        strong=True,
      ),
      grid.Cell(
        "",
        bar=scores.interval(score, *axes[key]),
        tone="down" if key == "p_contrast" else "up",
        tip=scores.with_bounds(score),
      ),
    ]
  return grid.Row(cells, quiet=name == "base")


def section(finding: Finding) -> page.Section:
  """Every watched latent, and every topic, before and after."""
  blocks = [*_latents(finding), *_topics(finding)]
  if not blocks:
    blocks = [page.missing("No latents were watched: set config.watch.")]
  return page.Section(
    id=f"{finding.prefix}latents", title="Watched latents", blocks=blocks
  )


def _chosen(finding: Finding) -> str:
  """By what the latents were picked."""
  why = finding.found.get("suspects")
  return f" Watched: {why}." if why else ""


def _latents(finding: Finding) -> list[page.Block]:
  found = finding.found
  latents = found.get("latents") or ()
  if not latents:
    return []
  weights = found.get("weights") or [None] * len(latents)
  recovered = (found.get("recovered") or {}).get("latents") or {}
  known = states(finding)
  heads = [
    grid.Head("latent", wide=True),
    grid.Head("weight", number=True),
    *(grid.Head(name, number=True) for name, _ in known),
    grid.Head("way back", number=True),
    grid.Head("0 to 100 %", bar=True),
  ]
  rows = [
    _direction(name, key, known, (found.get("recovered") or {}))
    for key, name in _together(known)
  ]
  for latent, weight in zip(latents, weights, strict=False):
    reference = finding.reference(latent)
    share = recovered.get(str(latent))
    cells = [
      grid.Cell(
        str(latent),
        sort=latent,
        href=reference["href"],
        note=reference["reading"],
      ),
      grid.Cell(scores.fixed(weight, 3, sign=True), sort=weight),
    ]
    for _, state in known:
      value = (state.get("latents") or {}).get(str(latent))
      cells.append(grid.Cell(say.number(value), sort=value))
    rows.append(grid.Row([*cells, *_way_back(share)]))
  return [
    page.text(
      "Mean activation on the fixed prompts. The way back is"
      " (before − after) / (before − base): 100 % is the base's own level,"
      " below 0 % it went further away. What did not measurably differ between"
      f" base and before has no way to go and no share.{_chosen(finding)}"
    ),
    grid.block(heads, rows, first=25),
  ]


def _together(
  known: Sequence[tuple[str, Mapping[str, Any]]],
) -> list[tuple[str, str]]:
  """The weighted sum, and the directions that were read beside it."""
  names = [("", "weighted sum")]
  directions = {n for _, state in known for n in state.get("directions") or ()}
  return names + [
    (key, {"mean_difference": "difference of means"}.get(key, key))
    for key in sorted(directions)
  ]


def _direction(
  name: str,
  key: str,
  known: Sequence[tuple[str, Mapping[str, Any]]],
  recovered: Mapping[str, Any],
) -> grid.Row:
  share = recovered.get("bundle")
  if key:
    share = (recovered.get("directions") or {}).get(key)
  values = [
    (state.get("directions") or {}).get(key) if key else state.get("bundle")
    for _, state in known
  ]
  return grid.Row(
    [
      grid.Cell(
        name,
        strong=not key,
        note="direction, no dictionary" if key else "of the latents below",
      ),
      grid.Cell(""),
      *(grid.Cell(say.number(value), sort=value) for value in values),
      *_way_back(share),
    ]
  )


def _way_back(share: float | None) -> list[grid.Cell]:
  return [
    grid.Cell(scores.percent(share), sort=share, strong=True),
    grid.Cell(
      "",
      bar=scores.interval(share, 0, 1),
      tone="up",
      tip=scores.percent(share),
    ),
  ]


def _topics(finding: Finding) -> list[page.Block]:
  """The margin by topic, of every state."""
  tables = []
  asked = [
    (name, (state.get("behaviour") or {}).get("topics") or {})
    for name, state in states(finding)
  ]
  names = {"base": "base", "start": "before", "end": "after"}
  triggered = [
    (names[key], state.get("topics") or {})
    for key, state in triggers(finding).items()
  ]
  for title, found in (("On the pairs", asked), ("On the triggers", triggered)):
    topics = list(dict.fromkeys(t for _, some in found for t in some))
    if len(topics) < 2:
      continue
    values = [
      [scores.mean(some.get(topic)) for topic in topics] for _, some in found
    ]
    largest = max(
      (abs(v) for line in values for v in line if v is not None), default=0.0
    )
    tables.append(
      {
        "title": title,
        "heads": topics,
        "rows": [
          {
            "name": name,
            "cells": [grid.shaded(value, largest, 3) for value in line],
          }
          for (name, _), line in zip(found, values, strict=True)
        ],
      }
    )
  if not tables:
    return []
  return [
    page.heading("Margin by topic"),
    {"kind": "by_topic", "tables": tables},
  ]
