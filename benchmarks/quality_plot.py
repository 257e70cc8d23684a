# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The plot of quality.py's cells: FVU over L0, and over time, as one HTML file.

Lines are means over seeds.
"""

import collections
import pathlib
import statistics

import quality_table
from plotly import graph_objects, subplots

_COLOURS = (
  "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
  "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
)  # fmt: skip

Group = list[tuple[quality_table.Problem, quality_table.Entry]]


def write(
  by_problem: dict[quality_table.Problem, list[quality_table.Entry]],
  file: pathlib.Path,
) -> None:
  """Writes the page: a row for each way to choose the rate, hook, F and kind.

  To the left all K, to the right the middle one of them over time.
  """
  groups: dict[str, Group] = collections.defaultdict(list)
  for problem, found in by_problem.items():
    hook, latents, _, activation, batch, steps = problem
    for entry in found:
      title = (
        f"{activation}, {entry.recipe}, {hook}, F={latents:,},"
        f" {steps:,} × {batch:,} rows"
      )
      groups[title].append((problem, entry))
  titles = ((title, f"K={_middle_k(g)}") for title, g in groups.items())
  figure = subplots.make_subplots(
    rows=len(groups), cols=2, subplot_titles=sum(titles, ())
  )
  everyone = sorted({e.system for group in groups.values() for _, e in group})
  colours = {
    name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(everyone)
  }
  named: set[str] = set()
  for row, group in enumerate(groups.values(), 1):
    for trace in _frontier(group, colours):
      # One line of the legend for all traces of a library.
      trace.showlegend = trace.name not in named
      named.add(trace.name)
      figure.add_trace(trace, row=row, col=1)
    for trace in _over_time(group, colours):
      figure.add_trace(trace, row=row, col=2)
    figure.update_xaxes(title_text="L0", row=row, col=1)
    figure.update_xaxes(
      title_text="processor seconds of training", type="log", row=row, col=2
    )
    figure.update_yaxes(title_text="FVU, held out", row=row)
    figure.update_yaxes(type="log", row=row, col=2)
  figure.update_annotations(font_size=13)
  figure.update_layout(height=400 * len(groups), template="plotly_white")
  figure.write_html(file, include_plotlyjs=True)


def _middle_k(group: Group) -> int:
  return statistics.median_low({problem[2] for problem, _ in group})


def _frontier(group: Group, colours):
  points = collections.defaultdict(list)
  for _, entry in group:
    results = list(entry.by_seed.values())
    points[entry.system].append(
      [
        statistics.fmean(map(read, results))
        for read in (quality_table.l0, quality_table.fvu)
      ]
    )
  for name, xy in points.items():
    x, y = zip(*sorted(xy), strict=True)
    yield graph_objects.Scatter(
      x=x,
      y=y,
      name=name,
      legendgroup=name,
      mode="lines+markers",
      line={"color": colours[name]},
    )


def _over_time(group: Group, colours):
  middle = _middle_k(group)
  for problem, entry in group:
    if problem[2] != middle:
      continue
    curves = [result["curve"] for result in entry.by_seed.values()]
    looks = list(zip(*curves, strict=True))
    yield graph_objects.Scatter(
      x=[statistics.fmean(at[2] for at in look) for look in looks],
      y=[statistics.fmean(at[3] for at in look) for look in looks],
      name=entry.system,
      legendgroup=entry.system,
      showlegend=False,
      mode="lines+markers",
      line={"color": colours[entry.system]},
      hovertext=[f"step {look[0][0]}" for look in looks],
    )
