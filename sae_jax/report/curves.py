# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Training curves: one small plot per metric, the runs laid over each other."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sae_jax.report import page, plots
from sae_jax.report.entries import Entry


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Panel:
  metric: str
  title: str
  caption: str
  axis: dict[str, Any]


_FROM_ZERO = {"rangemode": "tozero"}
_LOG = {"type": "log", "dtick": "D2", "minor": {"showgrid": False}}
_PANELS = (
  _Panel(
    metric="train/fvu",
    title="FVU",
    caption="share of the variance not explained, log scale",
    axis=_LOG,
  ),
  _Panel(
    metric="train/l0",
    title="L0",
    caption="active latents per token",
    axis=_FROM_ZERO,
  ),
  _Panel(
    metric="train/dead_frac",
    title="Dead latents",
    caption="share that has not fired for the dead-after window",
    axis={**_FROM_ZERO, "tickformat": ".1~%"},
  ),
  _Panel(
    metric="train/auxk",
    title="AuxK",
    caption="share of the residual that dead latents leave unexplained",
    axis=_FROM_ZERO,
  ),
  _Panel(
    metric="train/lr",
    title="Learning rate",
    caption="",
    axis={**_FROM_ZERO, "exponentformat": "e"},
  ),
  _Panel(
    metric="perf/tokens_per_s",
    title="Tokens per second",
    caption="",
    axis={**_FROM_ZERO, "tickformat": "~s"},
  ),
)
_KNOWN = {panel.metric for panel in _PANELS}


def section(entries: Sequence[Entry]) -> page.Section:
  """Every metric of the runs: the six that matter, then the rest."""
  runs = [entry for entry in entries if entry.metrics]
  if not runs:
    return page.Section(
      id="training",
      title="Training",
      blocks=[
        page.missing(
          "No metrics.jsonl among the given directories; give the directory of"
          " a training run.",
          "sae-jax report RUN EVAL --out=report.html",
        )
      ],
    )
  names = {
    name for entry in runs for line in entry.metrics for name in line
  } - {"step"}
  main = [_figure(panel, runs) for panel in _PANELS if panel.metric in names]
  rest = [
    _figure(_Panel(metric=name, title=name, caption="", axis={}), runs)
    for name in sorted(names - _KNOWN)
    if any(
      isinstance(line.get(name), (int, float))
      for e in runs
      for line in e.metrics
    )
  ]
  blocks = [page.figures(main)]
  if rest:
    blocks += [page.heading("Other metrics"), page.figures(rest)]
  return page.Section(id="training", title="Training", blocks=blocks)


def _figure(panel: _Panel, runs: Sequence[Entry]) -> page.Figure:
  data = []
  for i, entry in enumerate(runs):
    lines = [line for line in entry.metrics if panel.metric in line]
    x, y = plots.thin(
      [line["step"] for line in lines], [line[panel.metric] for line in lines]
    )
    data.append(
      {
        "type": "scatter",
        "mode": "lines" if len(x) > 1 else "markers",
        "x": x,
        "y": y,
        "name": entry.name,
        "line": {"color": plots.colour(i), "width": 1.6},
        "marker": {"color": plots.colour(i)},
        "hovertemplate": "step %{x:,}: %{y:.4~g}<extra></extra>"
        if len(runs) == 1
        else "%{y:.4~g}",
      }
    )
  several = len(runs) > 1
  return page.Figure(
    title=panel.title,
    caption=panel.caption,
    spec={
      "data": data,
      "layout": plots.layout(
        x={"title": plots.title("step"), "tickformat": "~s"},
        y=panel.axis,
        legend=several,
        hovermode="x unified" if several else "closest",
      ),
    },
  )
