# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How often latents fire: a histogram of rates, and rate against strength."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sae_jax.report import page, plots, say
from sae_jax.report.entries import Entry, evaluated

_BINS_PER_DECADE = 5
_MAX_POINTS = 3000  # of the scatter plot


class _Rates(NamedTuple):
  """Of one evaluated dictionary."""

  name: str
  fires_F: np.ndarray
  mean_F: np.ndarray
  rows: int


def section(entries: Sequence[Entry]) -> page.Section:
  """Firing rates of every evaluated dictionary."""
  measured = [
    _Rates(
      entry.name,
      evaluation.arrays["fires_F"],
      evaluation.arrays["mean_F"],
      evaluation.metrics["rows"],
    )
    for entry, evaluation in evaluated(entries)
    if evaluation.arrays
  ]
  if not measured:
    blocks = [
      page.missing(
        "Firing rates are measured by the evaluation; there is none."
      )
    ]
  else:
    blocks = [
      page.text(" ".join(_dead_line(r, len(measured) > 1) for r in measured)),
      page.figures([_histogram(measured), _scatter(measured)], wide=True),
    ]
  return page.Section(id="density", title="Firing rates", blocks=blocks)


def _dead_line(rates: _Rates, name_it: bool) -> str:
  fires_F, rows = rates.fires_F, rates.rows
  dead = int(np.sum(fires_F == 0))
  dense = int(np.sum(fires_F > 0.1 * rows))
  head = f"{rates.name}: " if name_it else ""
  fired = (
    f"{dead:,} of {len(fires_F):,} latents never fired"
    if dead
    else f"All {len(fires_F):,} latents fired at least once"
  )
  return (
    f"{head}{fired} on {rows:,} held-out rows; {dense:,} on more than 10 % of"
    " them."
  )


def _histogram(measured: Sequence[_Rates]) -> page.Figure:
  edges, never, axis = bins(max(r.rows for r in measured))
  width = 1 / _BINS_PER_DECADE
  data = []
  for i, rates in enumerate(measured):
    fires_F, rows = rates.fires_F, rates.rows
    alive = fires_F[fires_F > 0]
    counts, _ = np.histogram(np.log10(alive / rows), edges)
    data.append(
      {
        "type": "bar",
        "name": rates.name,
        "x": [never, *(edges[:-1] + width / 2).tolist()],
        "y": [int(np.sum(fires_F == 0)), *counts.tolist()],
        "width": 0.9 * width,
        "customdata": ["never", *spans(edges)],
        "hovertemplate": "%{y:,} latents: %{customdata}<extra></extra>",
        "opacity": 1 if len(measured) == 1 else 0.55,
        "marker": {
          "color": [plots.colour(i)] * (len(counts) + 1)
          if len(measured) > 1
          else [plots.colour(1)] + [plots.colour(0)] * len(counts)
        },
      }
    )
  return page.Figure(
    title="Latents by firing rate",
    caption="share of held-out rows on which a latent is active, log scale;"
    " those that never fired stand apart",
    height=300,
    spec={
      "data": data,
      "layout": plots.layout(
        x=axis,
        y={"title": plots.title("latents"), "tickformat": "~s"},
        legend=len(measured) > 1,
        barmode="overlay",
      ),
    },
  )


def bins(rows: int) -> tuple[np.ndarray, float, dict[str, Any]]:
  """Edges of log10 rates down to one row in `rows`.

  Returns:
    The edges, where those stand that never fire, and the axis.
  """
  width = 1 / _BINS_PER_DECADE
  count = math.ceil(math.log10(rows) * _BINS_PER_DECADE) + 1
  edges = np.linspace(-count * width, 0, count + 1)
  never = float(edges[0] - 2.5 * width)
  exponents = range(math.ceil(edges[0]), 1)
  axis = {
    "title": plots.title("fires on"),
    "tickvals": [never, *exponents],
    "ticktext": ["never", *map(plots.share_label, exponents)],
  }
  return edges, never, axis


def spans(edges: np.ndarray) -> list[str]:
  """From which share of rows to which: of every bin."""
  return [
    f"{say.percent(10**a)} to {say.percent(10**b)}"
    for a, b in itertools.pairwise(edges)
  ]


def _scatter(measured: Sequence[_Rates]) -> page.Figure:
  data, lowest, thinned = [], -1, False
  for i, rates in enumerate(measured):
    fires_F, rows = rates.fires_F, rates.rows
    latents = np.flatnonzero(fires_F)
    if len(latents) > _MAX_POINTS:
      rng = np.random.default_rng(0)
      latents = np.sort(rng.choice(latents, _MAX_POINTS, replace=False))
      thinned = True
    rate = fires_F[latents] / rows
    lowest = min(lowest, math.floor(-math.log10(rows)))
    data.append(
      {
        "type": "scatter",
        "mode": "markers",
        "name": rates.name,
        "x": np.round(rate, 8).tolist(),
        "y": [float(f"{v:.4g}") for v in rates.mean_F[latents]],
        "text": [f"latent {n}" for n in latents],
        "hovertemplate": "%{text}<br>fires on %{x:.3~%}<br>"
        "mean %{y:.3~g}<extra></extra>",
        "marker": {"color": plots.colour(i), "size": 4, "opacity": 0.45},
      }
    )
  exponents = range(lowest, 1)
  return page.Figure(
    title="Rate and strength",
    caption="each dot a latent that fired"
    + (f" (a random {_MAX_POINTS:,})" if thinned else ""),
    height=300,
    spec={
      "data": data,
      "layout": plots.layout(
        x={
          "title": plots.title("fires on"),
          "type": "log",
          "tickvals": [10.0**e for e in exponents],
          "ticktext": list(map(plots.share_label, exponents)),
        },
        y={
          "title": plots.title("mean activation when on"),
          **plots.log_axis(),
        },
        legend=len(measured) > 1,
      ),
    },
  )
