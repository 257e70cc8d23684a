# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Signals by the share of bad data: is more of it seen as more."""

from collections.abc import Mapping
from typing import Any

from sae_jax.report import grid, monitor_words, page, plots, scores
from sae_jax.report.findings import Finding


def section(finding: Finding) -> page.Section:
  dosed = [g for g in finding.found.get("groups") or () if g.get("dose")]
  if not dosed:
    blocks: list[page.Block] = [
      page.missing(
        "No runs with a stated dose of bad data: set RunConfig.dose."
      )
    ]
  else:
    names = [
      name
      for name in monitor_words.main(finding)
      if any(name in group["dose"] for group in dosed)
    ]
    figures = [_figure(finding, dosed, name) for name in names]
    blocks = [
      page.text(
        "Last checkpoints by the share of bad samples they were trained on."
        " Hollow: the latents were selected on that run. τ is Kendall's, 1"
        " where every pair of doses is in order."
      ),
      page.figures(figures[:2], wide=True),
      grid.block(
        [
          grid.Head("", wide=True),
          grid.Head("group"),
          grid.Head("τ", number=True),
          grid.Head("in order"),
          grid.Head("alarm from", number=True),
          grid.Head("behaviour from", number=True),
        ],
        [
          _row(group, name)
          for name in names
          for group in dosed
          if name in group["dose"]
        ],
        first=20,
      ),
    ]
    if rest := figures[2:]:
      words = f"{len(rest)} other signals"
      blocks.insert(2, page.fold(words, [page.figures(rest, wide=True)]))
  return page.Section(id=f"{finding.prefix}doses", title="Doses", blocks=blocks)


def _row(group: Mapping[str, Any], name: str) -> grid.Row:
  found = group["dose"][name]
  tau = found.get("tau")
  ordered = found.get("ordered")
  return grid.Row(
    [
      grid.Cell(
        monitor_words.title(name),
        note=monitor_words.about(name),
        strong=name == "latents",
      ),
      grid.Cell(group["name"]),
      grid.Cell(scores.fixed(tau, 2, sign=True), sort=tau),
      grid.Cell("–" if ordered is None else "yes" if ordered else "no"),
      _share(found.get("alarm_dose")),
      _share(found.get("behaviour_dose")),
    ]
  )


def _share(value: float | None) -> grid.Cell:
  return grid.Cell(scores.percent(value), sort=value)


def _figure(
  finding: Finding, dosed: list[Mapping[str, Any]], name: str
) -> page.Figure:
  data: list[dict[str, Any]] = []
  for i, group in enumerate(dosed):
    found = group["dose"].get(name) or {}
    colour = plots.colour(i)
    data.append(
      _trace(group["name"], found.get("values") or (), colour)
      | {"mode": "lines+markers", "line": {"color": colour, "width": 1.6}}
    )
    if selected := found.get("selected"):
      hollow = _trace(group["name"], selected, colour)
      hollow["marker"]["symbol"] = "circle-open"
      data.append(hollow | {"mode": "markers", "showlegend": False})
  threshold = ((finding.found.get("signals") or {}).get(name) or {}).get(
    "threshold"
  )
  words = monitor_words.title(name)
  return page.Figure(
    title=words[:1].upper() + words[1:],
    caption="by share of bad data; dotted: the alarm's threshold",
    height=280,
    spec={
      "data": [trace for trace in data if trace["x"]],
      "layout": plots.layout(
        x={
          "title": plots.title("bad samples"),
          "tickformat": ".0~%",
          "range": [-0.03, 1.05],
        },
        y={"title": plots.title("shift over norm")},
        legend=len(dosed) > 1,
        hovermode="closest",
        shapes=[] if threshold is None else [plots.level(threshold)],
      ),
    },
  )


def _trace(name: str, values: Any, colour: str) -> dict[str, Any]:
  return {
    "type": "scatter",
    "name": name,
    "x": [dose for dose, _ in values],
    "y": plots.short(value for _, value in values),
    "text": [
      plots.escaped(name, f"{scores.percent(dose)} bad data: {value:.3g}")
      for dose, value in values
    ],
    "hovertemplate": "%{text}<extra></extra>",
    "cliponaxis": False,
    "marker": {"color": colour, "size": 8},
  }
