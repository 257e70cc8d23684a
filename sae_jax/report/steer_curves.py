# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Dose and response: effects by strength, both ways, beside chance."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax.report import diff_words, page, plots, say, scores, steer_words
from sae_jax.report.findings import Finding
from sae_jax.report.steer_words import Row

_LINES = 5  # as many as there are colours
_DASHES = {"direction": "dash", "bundle": "solid", "latent": "solid"}


def section(finding: Finding) -> page.Section:
  """Bundles beside directions, single latents, then both probabilities."""
  named = [
    *steer_words.strongest(steer_words.kind(finding, "bundle")),
    *steer_words.kind(finding, "direction"),
  ][:_LINES]
  singles = steer_words.strongest(steer_words.kind(finding, "latent"))
  singles = singles[:_LINES]
  blocks: list[page.Block] = [
    page.text(
      "How far the margin moves as more is added to the base (left) or"
      f" {steer_words.removed(finding)} the tuned model (right). Grey: the"
      " least and the most that random interventions of the same norm do. Bars"
      f" are {_confidence(finding)} intervals over prompts."
    )
  ]
  for words, rows in (
    ("Bundles, and directions found without a dictionary", named),
    (f"Single latents: the {len(singles)} strongest", singles),
  ):
    shown = [row for row in rows if row.get("up") or row.get("down")]
    if shown:
      blocks += [
        page.heading(words),
        page.figures(_pair(finding, shown, _effect), wide=True),
      ]
  best = (steer_words.strongest(steer_words.kind(finding, "bundle")) + singles)[
    :1
  ]
  if best and any(_curve(best[0], way) for way in steer_words.WAYS):
    row = best[0]
    blocks += [
      page.heading(f"Both answers apart: {steer_words.title(row)}"),
      page.text(
        "Probability per token of the behaviour's and of the contrast's"
        " response. A margin that rises because the contrast's dies is no"
        " behaviour gained. Dotted: the other model, unsteered."
      ),
      page.figures(_pair(finding, [row], _chances), wide=True),
    ]
  if len(blocks) == 1:
    blocks = [page.missing("This screen has no interventions with curves.")]
  return page.Section(
    id=f"{finding.prefix}curves", title="Dose and response", blocks=blocks
  )


def _confidence(finding: Finding) -> str:
  chosen = finding.settings.get("statistics") or {}
  return f"{100 * chosen.get('confidence', 0.95):g} %"


def _pair(finding: Finding, rows: Sequence[Row], draw: Any) -> list:
  return [draw(finding, rows, way) for way in steer_words.WAYS]


def _curve(row: Row, way: str) -> Sequence[Mapping[str, Any]]:
  return (row.get(way) or {}).get("curve") or ()


def _frame(
  finding: Finding, rows: Sequence[Row], way: str, y: dict[str, Any]
) -> dict[str, Any]:
  """The strengths that were tried, told apart on a log scale."""
  steps = sorted({p["strength"] for row in rows for p in _curve(row, way)})
  return plots.layout(
    x={
      "title": plots.title("strength"),
      "type": "log",
      "tickvals": steps,
      "ticktext": [f"{s:g}" for s in steps],
    },
    y=y,
    legend=True,
    hovermode="closest",
  )


def _effect(finding: Finding, rows: Sequence[Row], way: str) -> page.Figure:
  known = [
    (row, found)
    for row in rows
    if (found := steer_words.band(finding, row)) is not None
  ]
  like, band = known[0] if known else (None, None)
  data = shade(band, way)
  data += [_line(row, way, i) for i, row in enumerate(rows)]
  shapes = [
    {
      "type": "line",
      "xref": "paper",
      "x0": 0,
      "x1": 1,
      "y0": 0,
      "y1": 0,
      "line": {"color": "var(--rule)", "width": 1},
    }
  ]
  y = {"title": plots.title("margin, nats per token")}
  layout = _frame(finding, rows, way, y)
  words = "change of the margin by strength"
  if like and band:
    what = "latents"
    if like["kind"] == "bundle":
      what = f"bundles like {like['name'].removeprefix('bundle ')}"
    words += f"; grey: {band['n']:,} random {what}"
  return page.Figure(
    title=_capital(steer_words.act(finding, way)),
    caption=words,
    height=320,
    spec={"data": data, "layout": layout | {"shapes": shapes}},
  )


def _capital(words: str) -> str:
  return words[:1].upper() + words[1:]


def shade(band: Mapping[str, Any] | None, way: str) -> list[dict[str, Any]]:
  """What random ones do, as a grey area behind the lines."""
  rows = [
    row
    for row in (band or {}).get(way) or ()
    if row.get("low") is not None and row.get("high") is not None
  ]
  if not rows or band is None:
    return []
  steps = [row["strength"] for row in rows]
  edge = {
    "type": "scatter",
    "mode": "lines",
    "x": steps,
    "line": {"width": 0},
    "legendgroup": "chance",
    "hoverinfo": "skip",
  }
  return [
    edge | {"y": plots.short(r["low"] for r in rows), "showlegend": False},
    edge
    | {
      "y": plots.short(r["high"] for r in rows),
      "name": f"{band['n']} random",
      "fill": "tonexty",
      "fillcolor": "var(--shade)",
    },
  ]


def _line(row: Row, way: str, i: int) -> dict[str, Any]:
  points = _curve(row, way)
  colour = plots.colour(i)
  found = row.get(way) or {}
  effects = [p["effect"] for p in points]
  return {
    "type": "scatter",
    "mode": "lines+markers",
    "name": steer_words.title(row),
    "x": [p["strength"] for p in points],
    "y": plots.short(effects),
    "error_y": plots.error_bars(
      [ends for p in points if (ends := scores.ends(steer_words.score(p)))],
      colour,
    ),
    "text": [_hover(row, p) for p in points],
    "hovertemplate": "%{text}<extra></extra>",
    "cliponaxis": False,
    "line": {
      "color": colour,
      "width": 1.8,
      "dash": _DASHES.get(row["kind"], "solid"),
    },
    "marker": {
      "color": colour,
      # The strength that was chosen stands out.
      "size": [
        10 if p["strength"] == found.get("strength") else 5 for p in points
      ],
    },
  }


def _hover(row: Row, point: Mapping[str, Any]) -> str:
  return plots.escaped(
    f"{steer_words.title(row)} at {point['strength']:g}",
    f"margin {scores.with_bounds(steer_words.score(point))}",
    f"P(behaviour) {say.number(point.get('p_behaviour'), 2)}, P(contrast)"
    f" {say.number(point.get('p_contrast'), 2)}",
    f"damage {diff_words.signed(point.get('damage'), 2)} nats per token",
  )


def _chances(finding: Finding, rows: Sequence[Row], way: str) -> page.Figure:
  """P(behaviour) and P(contrast) of one intervention, from no strength on."""
  row, points = rows[0], _curve(rows[0], way)
  unsteered = finding.found.get("unsteered") or {}
  own, other = ("base", "tuned") if way == "up" else ("tuned", "base")
  data, shapes = [], []
  for key, name, colour in (
    ("p_behaviour", "P(behaviour)", plots.RISEN),
    ("p_contrast", "P(contrast)", plots.FALLEN),
  ):
    start = scores.mean((unsteered.get(own) or {}).get(key))
    known = [p for p in points if p.get(key) is not None]
    x = [0.0, *(p["strength"] for p in known)]
    y = [start, *(p[key] for p in known)]
    if start is None:
      x, y = x[1:], y[1:]
    data.append(
      {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": x,
        "y": plots.short(v for v in y if v is not None),
        "hovertemplate": f"{name} %{{y:.3~g}} at strength %{{x}}"
        "<extra></extra>",
        "cliponaxis": False,
        "line": {"color": colour, "width": 1.8},
        "marker": {"color": colour, "size": 6},
      }
    )
    goal = scores.mean((unsteered.get(other) or {}).get(key))
    if goal is not None:
      shapes.append(plots.level(goal, colour))
  layout = plots.layout(
    x={"title": plots.title("strength"), "rangemode": "tozero"},
    y={"title": plots.title("per token"), "rangemode": "tozero"},
    legend=True,
    shapes=shapes,
    hovermode="closest",
  )
  goal = (
    steer_words.tuned(finding) if way == "up" else steer_words.base(finding)
  )
  return page.Figure(
    title=_capital(steer_words.act(finding, way)),
    caption=f"{steer_words.title(row)}; dotted: {goal} unsteered",
    height=280,
    spec={"data": data, "layout": layout},
  )
