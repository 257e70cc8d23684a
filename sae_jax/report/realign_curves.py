# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The way back, step by step: behaviour, and the latents under suspicion."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax.report import page, plots, say, scores
from sae_jax.report.findings import Finding

_LATENTS = 5  # lines: as many as there are colours


def section(finding: Finding) -> page.Section:
  series = finding.found.get("series") or ()
  if len(series) < 2:
    blocks: list[page.Block] = [
      page.missing("The series has fewer than two readings: nothing to draw.")
    ]
  else:
    figures = [
      _margin(finding, series),
      _chances(finding, series),
      _bundle(finding, series),
      _way_back(finding, series),
    ]
    loss = _loss(series)
    blocks = [
      page.text(
        "What was read on fixed prompts as good samples went by. Dotted: the"
        " base, and the model before."
      ),
      page.figures([f for f in (*figures, loss) if f is not None], wide=True),
    ]
  return page.Section(
    id=f"{finding.prefix}curves", title="The way back", blocks=blocks
  )


def _x(series: Sequence[Mapping[str, Any]]) -> list[int]:
  return [point["samples"] for point in series]


def _behaviour(point: Mapping[str, Any], key: str) -> scores.Score:
  return (point.get("behaviour") or {}).get(key)


def _reference(finding: Finding, state: str) -> Mapping[str, Any]:
  return (finding.found.get("reference") or {}).get(state) or {}


def _layout(y: str, **more: Any) -> dict[str, Any]:
  return plots.layout(
    x={"title": plots.title("good samples seen"), "rangemode": "tozero"},
    y={"title": plots.title(y)},
    hovermode="closest",
    **more,
  )


def _line(
  name: str,
  x: Sequence[float],
  y: Sequence[float | None],
  text: Sequence[str],
  colour: str,
) -> dict[str, Any]:
  known = [
    (a, b, t) for a, b, t in zip(x, y, text, strict=True) if b is not None
  ]
  return {
    "type": "scatter",
    "mode": "lines+markers",
    "name": name,
    "x": [a for a, _, _ in known],
    "y": plots.short(b for _, b, _ in known),
    "text": [plots.escaped(*t.split("\n")) for _, _, t in known],
    "hovertemplate": "%{text}<extra></extra>",
    "cliponaxis": False,
    "line": {"color": colour, "width": 1.8},
    "marker": {"color": colour, "size": 6},
  }


def _levels(finding: Finding, key: str) -> list[dict[str, Any]]:
  """The base's interval shaded, the model before as a line."""
  shapes = []
  base = _behaviour(_reference(finding, "base"), key)
  start = _behaviour(_reference(finding, "start"), key)
  if known := scores.bounds(base):
    shapes.append(
      {
        "type": "rect",
        "layer": "below",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": known[0],
        "y1": known[1],
        "fillcolor": "var(--shade)",
        "line": {"width": 0},
      }
    )
  for score, colour in ((base, plots.FALLEN), (start, plots.RISEN)):
    if (value := scores.mean(score)) is not None:
      shapes.append(plots.level(value, colour))
  return shapes


def _margin(
  finding: Finding, series: Sequence[Mapping[str, Any]]
) -> page.Figure:
  found = [_behaviour(point, "margin") for point in series]
  line = _line(
    "margin",
    _x(series),
    [scores.mean(score) for score in found],
    [
      f"{p['samples']:,} samples, step {p['step']:,}\nmargin"
      f" {scores.with_bounds(score)}"
      for p, score in zip(series, found, strict=True)
    ],
    "var(--ink)",
  )
  line["error_y"] = plots.error_bars(
    [ends for score in found if (ends := scores.ends(score)) is not None],
    "var(--ink)",
  )
  shapes = _levels(finding, "margin")
  return page.Figure(
    title="Behaviour",
    caption="margin on the pairs; blue: the base with its interval, orange:"
    " before",
    height=300,
    spec={"data": [line], "layout": _layout("margin", shapes=shapes)},
  )


def _chances(
  finding: Finding, series: Sequence[Mapping[str, Any]]
) -> page.Figure:
  data, shapes = [], []
  for key, name, colour in (
    ("p_behaviour", "P(behaviour)", plots.RISEN),
    ("p_contrast", "P(contrast)", plots.FALLEN),
  ):
    found = [_behaviour(point, key) for point in series]
    data.append(
      _line(
        name,
        _x(series),
        [scores.mean(score) for score in found],
        [
          f"{p['samples']:,} samples\n{name} {scores.chance(score)}"
          for p, score in zip(series, found, strict=True)
        ],
        colour,
      )
    )
    goal = scores.mean(_behaviour(_reference(finding, "base"), key))
    if goal is not None:
      shapes.append(plots.level(goal, colour))
  return page.Figure(
    title="Both answers apart",
    caption="probability per token; dotted: the base's",
    height=300,
    spec={
      "data": data,
      "layout": _layout("per token", shapes=shapes, legend=True),
    },
  )


def _bundle(
  finding: Finding, series: Sequence[Mapping[str, Any]]
) -> page.Figure | None:
  if all(point.get("bundle") is None for point in series):
    return None
  line = _line(
    "watched latents",
    _x(series),
    [point.get("bundle") for point in series],
    [
      f"{p['samples']:,} samples\nweighted sum {say.number(p.get('bundle'))}"
      for p in series
    ],
    "var(--ink)",
  )
  shapes = [
    plots.level(value, colour)
    for state, colour in (("base", plots.FALLEN), ("start", plots.RISEN))
    if (value := _reference(finding, state).get("bundle")) is not None
  ]
  return page.Figure(
    title="Watched latents together",
    caption="weighted sum of mean activations; blue: the base, orange: before",
    height=300,
    spec={"data": [line], "layout": _layout("activation", shapes=shapes)},
  )


def _way_back(
  finding: Finding, series: Sequence[Mapping[str, Any]]
) -> page.Figure | None:
  """Each latent on the way from before (0 %) to the base (100 %)."""
  base, start = _reference(finding, "base"), _reference(finding, "start")
  ends = {
    name: (low, high)
    for latent in finding.found.get("latents") or ()
    if (low := (start.get("latents") or {}).get(name := str(latent)))
    is not None
    and (high := (base.get("latents") or {}).get(name)) is not None
    and low != high
  }
  # Those with the longest way to go; the others' shares are noise.
  order = sorted(ends, key=lambda name: -abs(ends[name][0] - ends[name][1]))
  data = []
  for i, name in enumerate(order[:_LATENTS]):
    low, high = ends[name]
    values = [(p.get("latents") or {}).get(name) for p in series]
    data.append(
      _line(
        f"latent {name}",
        _x(series),
        [None if v is None else (low - v) / (low - high) for v in values],
        [
          f"latent {name} after {p['samples']:,} samples\n"
          f"activation {say.number(v)} (base {say.number(high)}, before"
          f" {say.number(low)})"
          for p, v in zip(series, values, strict=True)
        ],
        plots.colour(i),
      )
    )
  if not data:
    return None
  layout = _layout(
    "way back", shapes=[plots.level(0), plots.level(1)], legend=True
  )
  layout["yaxis"]["tickformat"] = ".0~%"
  more = f", the {_LATENTS} that had moved most" if len(ends) > _LATENTS else ""
  return page.Figure(
    title="Watched latents one by one",
    caption=f"0 %: as before, 100 %: as in the base{more}",
    height=300,
    spec={"data": data, "layout": layout},
  )


def _loss(series: Sequence[Mapping[str, Any]]) -> page.Figure | None:
  if all(point.get("loss") is None for point in series):
    return None
  line = _line(
    "loss",
    _x(series),
    [point.get("loss") for point in series],
    [
      f"{p['samples']:,} samples\nloss {say.number(p.get('loss'))}"
      for p in series
    ],
    "var(--soft)",
  )
  return page.Figure(
    title="Training loss",
    caption="nats per token of the good samples",
    height=220,
    spec={"data": [line], "layout": _layout("loss")},
  )
