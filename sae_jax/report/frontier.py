# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""FVU against L0: which dictionaries no other one beats at both.

Only numbers of one kind are laid beside each other: all from evaluations, or
all from training.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sae_jax.report import page, plots, say
from sae_jax.report.groups import DIVERGED, Group

# Where a pair of numbers comes from, the best first.
SOURCES = {
  "evaluation": "the rows of its evaluation",
  "look": "a fixed sample of held-out rows, at the last look during training",
  "training": "the rows of the last logged training step",
}
# An axis is logarithmic from this ratio of its ends on.
_LOG_FROM = 3.0
_EDGE = 1.25  # of the largest FVU: what diverged is drawn no higher


class Measured(NamedTuple):
  """One dictionary on one set of rows."""

  fvu: float
  l0: float
  data: str  # equal where an FVU is a share of the same variance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """A dictionary as the figure shows it."""

  name: str
  group: Group
  measured: Mapping[str, Measured]  # by SOURCES; whatever is known
  about: str = ""  # a line below its name
  whole: bool = True  # trained as long as the others
  anchor: str = ""  # where a click leads


class Chosen(NamedTuple):
  """What is drawn."""

  source: str  # "" if there is nothing
  shown: list[int]  # of the points
  front: list[list[int]]  # for each set of rows, by L0


def measured_in_training(
  last: Mapping[str, float | None], data: str
) -> dict[str, Measured]:
  """The kinds of numbers that a log of metrics has.

  Args:
    last: a metric's name to its last value.
    data: see `Measured`.
  """
  found = {}
  for source, kind in (("look", "eval"), ("training", "train")):
    fvu, l0 = last.get(f"{kind}/fvu"), last.get(f"{kind}/l0")
    if fvu is not None and l0 is not None:
      found[source] = Measured(fvu, l0, data)
  return found


def choose(points: Sequence[Point]) -> Chosen:
  """The best kind of numbers that most points have, and its frontier."""
  known = [point for point in points if point.whole] or list(points)
  count = {
    source: sum(source in point.measured for point in known)
    for source in SOURCES
  }
  source = max(SOURCES, key=lambda s: count[s])  # the first of the largest
  shown = [i for i, point in enumerate(points) if source in point.measured]
  if not shown:
    return Chosen("", [], [])
  rows: dict[str, list[int]] = {}
  for i in shown:
    if points[i].whole:
      rows.setdefault(points[i].measured[source].data, []).append(i)
  front = [
    pareto([(points[i].measured[source], i) for i in some])
    for some in rows.values()
  ]
  return Chosen(source, shown, front)


def pareto(found: Sequence[tuple[Measured, int]]) -> list[int]:
  """Those that no other has both less FVU and no more L0 than, by L0."""
  best, front = float("inf"), []
  for measured, i in sorted(found, key=lambda f: (f[0].l0, f[0].fvu, f[1])):
    if measured.fvu < best:
      best = measured.fvu
      front.append(i)
  return front


def source_words(points: Sequence[Point], chosen: Chosen) -> str:
  """Which rows the numbers are of, and who is left out for lack of them."""
  words = f"FVU and L0 of every dictionary are of {SOURCES[chosen.source]}."
  if len(chosen.front) > 1:
    words += (
      " A frontier is drawn for each hook and store: an FVU is a share of the"
      " variance of those rows, so it says nothing beside one of other rows."
    )
  out = [p.name for i, p in enumerate(points) if i not in chosen.shown]
  if out:
    words += f" Not drawn, for lack of such numbers: {'; '.join(out)}."
  return words


def figure(
  points: Sequence[Point], chosen: Chosen, *, jump: str = ""
) -> page.Figure:
  """The plot; a dictionary on the frontier has a ring around it."""
  found = _drawn(points, chosen)
  data = [_line(points, found, front) for front in chosen.front]
  for group in dict.fromkeys(points[i].group for i in chosen.shown):
    some = [i for i in chosen.shown if points[i].group == group]
    data.append(_marks(points, found, some, chosen))
  layout = plots.layout(
    x={
      "title": plots.title("L0, active latents per row"),
      **_l0_axis([m.l0 for m in found.values()]),
      "showgrid": True,
    },
    y={
      "title": plots.title("FVU, share of variance"),
      **_fvu_axis([m.fvu for m in found.values()]),
    },
    hovermode="closest",
  )
  return page.Figure(
    title="FVU against L0",
    caption="lower left is better; ringed and joined: no other dictionary has"
    " less of both",
    height=400,
    spec={"data": data, "layout": layout},
    jump=jump,
  )


def _l0_axis(values: Sequence[float]) -> dict[str, Any]:
  """Doublings, as k is usually chosen."""
  low, high = min(values), max(values)
  if not _is_log(low, high):
    return {"tickformat": "~g"}
  first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
  ticks = [2.0**e for e in range(first, last + 1, 1 + (last - first) // 10)]
  return _log_axis(ticks)


def _fvu_axis(values: Sequence[float]) -> dict[str, Any]:
  low, high = min(values), max(values)
  if not _is_log(low, high):
    return {"tickformat": "~g"}
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  steps = (1, 1.5, 2, 3, 5, 7) if high < 12 * low else (1, 2, 5)
  return _log_axis([a * 10.0**e for e in range(first, last + 1) for a in steps])


def _is_log(low: float, high: float) -> bool:
  return low > 0 and high >= _LOG_FROM * low


def _log_axis(ticks: Sequence[float]) -> dict[str, Any]:
  return {
    "type": "log",
    "tickvals": list(ticks),
    "ticktext": [f"{v:g}" for v in ticks],
  }


def _drawn(points: Sequence[Point], chosen: Chosen) -> dict[int, Measured]:
  """Where the points are drawn; what exploded stands just above the others."""
  found = {i: points[i].measured[chosen.source] for i in chosen.shown}
  whole = [m.fvu for i, m in found.items() if points[i].whole]
  edge = _EDGE * max(whole, default=math.inf)
  return {i: m._replace(fvu=min(m.fvu, edge)) for i, m in found.items()}


def _line(
  points: Sequence[Point], found: Mapping[int, Measured], front: Sequence[int]
) -> dict[str, Any]:
  """The frontier, ringed; it goes with its group where it is of one only."""
  groups = {points[i].group for i in front}
  alone = next(iter(groups)) if len(groups) == 1 else None
  return {
    "type": "scatter",
    "mode": "lines+markers",
    "x": plots.short(found[i].l0 for i in front),
    "y": plots.short(found[i].fvu for i in front),
    "hoverinfo": "skip",
    "showlegend": False,
    "line": {"color": alone.colour if alone else "var(--soft)", "width": 1.4},
    "marker": {
      "color": "var(--ink)",
      "symbol": "circle-open",
      "size": 18,
      "line": {"width": 1.4},
    },
    **({"legendgroup": alone.id} if alone else {}),
  }


def _marks(
  points: Sequence[Point],
  found: Mapping[int, Measured],
  some: Sequence[int],
  chosen: Chosen,
) -> dict[str, Any]:
  best = {i for front in chosen.front for i in front}
  group = points[some[0]].group
  return {
    "type": "scatter",
    "mode": "markers",
    "legendgroup": group.id,
    "x": plots.short(found[i].l0 for i in some),
    "y": plots.short(found[i].fvu for i in some),
    "text": [
      _hover(points[i], points[i].measured[chosen.source], found[i], i in best)
      for i in some
    ],
    "customdata": [points[i].anchor for i in some],
    "hovertemplate": "%{text}<extra></extra>",
    "cliponaxis": False,
    "marker": {
      "color": group.colour,
      "symbol": [group.symbol if points[i].whole else DIVERGED for i in some],
      "size": 10,
      "line": {"color": "var(--paper)", "width": 0.5},
    },
  }


def _hover(
  point: Point, measured: Measured, drawn: Measured, best: bool
) -> str:
  return plots.escaped(
    point.name,
    point.about,
    f"FVU {say.number(measured.fvu, 4)}, L0 {say.number(measured.l0, 4)}",
    "on the frontier" if best else "",
    "drawn at the edge" if drawn != measured else "",
  )
