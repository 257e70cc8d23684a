# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Training curves of a sweep: one figure per metric, one line a member."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from sae_jax.report import curves, page, plots, say, sweep_words
from sae_jax.report.entries import Entry
from sae_jax.report.groups import DIVERGED
from sae_jax.report.sweep_entry import Member, Sweep

# Of one figure: more only slow the page down.
_MAX_POINTS = 8000
_HELD_OUT = curves.Panel(
  metric="eval/fvu",
  title="FVU, held-out rows",
  caption="variance not explained of a fixed sample, log scale",
  axis=plots.log_axis(),
)


def section(sweep: Sweep) -> page.Section:
  """Curves of the members, then of the run that trains them all."""
  if not any(member.metrics for member in sweep.members):
    blocks: list[page.Block] = [page.missing("No step has been logged yet.")]
  else:
    blocks = [page.text(_words(sweep)), *sweep_words.key(sweep)]
    blocks += _of_members(sweep)
  if sweep.metrics:
    blocks += [
      page.heading("The run"),
      page.text(
        "Tokens are counted once: every member trains on each of them."
      ),
      *curves.blocks_of([run_entry(sweep)]),
    ]
  return page.Section(
    id=f"{sweep.prefix}training", title="Training", blocks=blocks
  )


def run_entry(sweep: Sweep) -> Entry:
  """The run as if it were of one dictionary: its rates, not its members."""
  return Entry(
    name=sweep.name,
    path=sweep.path,
    config=sweep.config,
    manifest=sweep.manifest,
    metrics=sweep.metrics,
    sae=None,
    evaluation=None,
  )


def _words(sweep: Sweep) -> str:
  words = (
    "One line a member, of the rows of each training step unless the heading"
    " says held-out rows; point at a line to read whose it is and to see it in"
    " every figure."
  )
  if any(member.frozen_at is not None for member in sweep.members):
    words += (
      " A line that ends in a cross diverged: its dictionary stays as it was"
      " before that step, the others went on. An axis is that of the others;"
      " what goes beyond it is at its edge."
    )
  return words


def _of_members(sweep: Sweep) -> list[page.Block]:
  names = {
    name
    for member in sweep.members
    for line in member.metrics
    for name, value in line.items()
    if value is not None
  } - {"step"}
  fvu, *rest = curves.PANELS
  known = [fvu, _HELD_OUT, *map(_closer, rest)]
  main = [_figure(sweep, panel) for panel in known if panel.metric in names]
  others = names - {panel.metric for panel in known} - {"eval/l0"}
  more = [
    _figure(sweep, curves.Panel(metric=name, title=name, caption="", axis={}))
    for name in sorted(others)
  ]
  blocks = [page.figures(main)]
  if more:
    blocks.append(page.fold("Other metrics", [page.figures(more)]))
  return blocks


def _closer(panel: curves.Panel) -> curves.Panel:
  """AuxK is near 1: from 0 on, members would lie on one line."""
  if panel.metric != "train/auxk":
    return panel
  return dataclasses.replace(panel, axis={"rangemode": "nonnegative"})


def _figure(sweep: Sweep, panel: curves.Panel) -> page.Figure:
  drawn = [
    (member, [line for line in member.metrics if panel.metric in line])
    for member in sweep.members
  ]
  drawn = [(member, lines) for member, lines in drawn if lines]
  reach = _reach(panel, drawn)
  ends = [
    (member, _end(lines, panel.metric))
    for member, lines in drawn
    if member.frozen_at is not None
  ]
  data = [_curve(sweep, member, lines, panel) for member, lines in drawn]
  data += [
    _cross(sweep, member, end, reach) for member, end in ends if end is not None
  ]
  return page.Figure(
    title=panel.title,
    caption=panel.caption,
    height=250,
    spec={
      "data": data,
      "layout": plots.layout(
        x={
          "title": plots.title("step"),
          "tickformat": "~s",
          "range": [0, max(sweep.steps_done - 1, 1)],
        },
        y=panel.axis | _range(panel, reach),
        hovermode="closest",
      ),
    },
  )


def _curve(
  sweep: Sweep,
  member: Member,
  lines: Sequence[dict[str, Any]],
  panel: curves.Panel,
) -> dict[str, Any]:
  group = sweep_words.group_of(sweep, member)
  most = max(100, _MAX_POINTS // len(sweep.members))
  x, y = plots.thin(
    [line["step"] for line in lines],
    [line[panel.metric] for line in lines],
    most,
  )
  return {
    "type": "scatter",
    "mode": "lines" if len(x) > 1 else "markers",
    "legendgroup": group.id,
    **sweep_words.identity(sweep, member),
    "x": x,
    "y": [None if v is None else float(f"{v:.5g}") for v in y],
    "name": plots.escaped(
      sweep_words.label(sweep, member), sweep_words.diverged(sweep, member)
    ),
    "hovertemplate": "%{fullData.name}<br>step %{x:,}: %{y:.4~g}"
    "<extra></extra>",
    "opacity": 0.85,
    "line": {"color": group.colour, "width": 1.5, "dash": group.dash},
    "marker": {"color": group.colour, "size": 5},
  }


def _cross(
  sweep: Sweep,
  member: Member,
  end: tuple[int, float],
  reach: tuple[float, float] | None,
) -> dict[str, Any]:
  """Where a member's curve ends; at the edge if that is beyond it."""
  step, value = end
  low, high = reach or (value, value)
  return {
    "type": "scatter",
    "mode": "markers",
    "legendgroup": sweep_words.group_of(sweep, member).id,
    **sweep_words.identity(sweep, member, "x"),
    "x": [step],
    "y": [min(max(value, low), high)],
    "name": plots.escaped(
      sweep_words.label(sweep, member),
      sweep_words.diverged(sweep, member),
      f"last at step {step:,}: {say.number(value, 4)}",
    ),
    "hovertemplate": "%{fullData.name}<extra></extra>",
    "cliponaxis": False,
    "marker": {
      "color": sweep_words.group_of(sweep, member).colour,
      "symbol": DIVERGED,
      "size": 10,
      "line": {"color": "var(--paper)", "width": 1},
    },
  }


def _end(
  lines: Sequence[dict[str, Any]], metric: str
) -> tuple[int, float] | None:
  known = (m for m in reversed(lines) if m[metric] is not None)
  return next(((m["step"], m[metric]) for m in known), None)


def _reach(
  panel: curves.Panel,
  drawn: Sequence[tuple[Member, Sequence[dict[str, Any]]]],
) -> tuple[float, float] | None:
  """From where to where the members go that did not diverge.

  None where no other one goes beyond, so that the axis finds its own ends.
  """
  by_kind: dict[bool, list[float]] = {True: [], False: []}
  for member, lines in drawn:
    values = (line[panel.metric] for line in lines)
    by_kind[member.frozen_at is None] += [v for v in values if v is not None]
  whole, ended = by_kind[True], by_kind[False]
  if not whole or not ended or max(ended) <= max(whole):
    return None
  return min(whole), max(whole)


def _range(
  panel: curves.Panel, reach: tuple[float, float] | None
) -> dict[str, Any]:
  if reach is None:
    return {}
  low, high = reach
  if panel.axis.get("type") == "log":
    if low <= 0:
      return {}
    low, high = math.log10(low), math.log10(high)
  elif panel.axis.get("rangemode") == "tozero":
    low = min(low, 0.0)
  margin = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
  return {"range": [low - margin if low else 0.0, high + margin]}
