# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Training curves: one small plot per metric, the runs laid over each other."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sae_jax.report import page, plots
from sae_jax.report.entries import Entry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
  """One metric and how it is shown."""

  metric: str
  title: str
  caption: str
  axis: dict[str, Any]


_FROM_ZERO = {"rangemode": "tozero"}
PANELS = (
  Panel(
    metric="train/fvu",
    title="FVU",
    caption="variance not explained, log scale",
    axis=plots.log_axis(),
  ),
  Panel(
    metric="train/l0",
    title="L0",
    caption="active latents per token",
    axis=_FROM_ZERO,
  ),
  Panel(
    metric="train/dead_frac",
    title="Dead latents",
    caption="share that has not fired for long",
    axis={**_FROM_ZERO, "tickformat": ".1~%"},
  ),
  Panel(
    metric="train/auxk",
    title="AuxK",
    caption="loss on the residual, unweighted",
    axis=_FROM_ZERO,
  ),
  Panel(
    metric="train/lr",
    title="Learning rate",
    caption="",
    axis={**_FROM_ZERO, "exponentformat": "e"},
  ),
  Panel(
    metric="sweep/live",
    title="Members in training",
    caption="that have not diverged",
    axis=_FROM_ZERO,
  ),
  Panel(
    metric="perf/tokens_per_s",
    title="Tokens per second",
    caption="",
    axis={**_FROM_ZERO, "tickformat": "~s"},
  ),
)
_KNOWN = {panel.metric for panel in PANELS}
_HELD_OUT = {name.replace("train/", "eval/") for name in _KNOWN}


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
  return page.Section(id="training", title="Training", blocks=blocks_of(runs))


def blocks_of(runs: Sequence[Entry]) -> list[page.Block]:
  """Figures of every metric that runs have logged."""
  names = {
    name for entry in runs for line in entry.metrics for name in line
  } - {"step"}
  main = [_figure(panel, runs) for panel in PANELS if panel.metric in names]
  rest = [
    _figure(Panel(metric=name, title=name, caption="", axis={}), runs)
    for name in sorted(names - _KNOWN - _HELD_OUT)
    if any(
      isinstance(line.get(name), (int, float))
      for e in runs
      for line in e.metrics
    )
  ]
  blocks = [page.figures(main)] if main else []
  if rest:
    blocks += [page.heading("Other metrics"), page.figures(rest)]
  return blocks


def _figure(panel: Panel, runs: Sequence[Entry]) -> page.Figure:
  several = len(runs) > 1
  held_out = panel.metric.replace("train/", "eval/")
  data = []
  for i, entry in enumerate(runs):
    data.append(_curve(entry, panel.metric, i, entry.name, several))
    if held_out != panel.metric and any(held_out in m for m in entry.metrics):
      data.append(_curve(entry, held_out, i, f"{entry.name} held out", several))
  caption = panel.caption
  if len(data) > len(runs):
    caption += "; dots: held-out rows"
  return page.Figure(
    title=panel.title,
    caption=caption,
    spec={
      "data": data,
      "layout": plots.layout(
        x={
          "title": plots.title("step"),
          "tickformat": "~s",
          "range": [0, max(entry.metrics[-1]["step"] for entry in runs)],
        },
        y=panel.axis,
        legend=several,
        hovermode="x unified" if several else "closest",
      ),
    },
  )


def _curve(
  entry: Entry, metric: str, i: int, name: str, several: bool
) -> dict[str, Any]:
  """One metric of a run: a line, or dots where it is of held-out rows."""
  lines = [line for line in entry.metrics if metric in line]
  x, y = plots.thin(
    [line["step"] for line in lines], [line[metric] for line in lines]
  )
  dots = metric.startswith("eval/") or len(x) == 1
  return {
    "type": "scatter",
    "mode": "markers" if dots else "lines",
    "x": x,
    "y": y,
    "name": name,
    "cliponaxis": False,  # dots on the frame stay whole
    "showlegend": not metric.startswith("eval/"),
    "line": {"color": plots.colour(i), "width": 1.6},
    "marker": {"color": plots.colour(i if several else i + 1), "size": 5},
    "hovertemplate": "%{y:.4~g}"
    if several
    else "step %{x:,}: %{y:.4~g}<extra></extra>",
  }
