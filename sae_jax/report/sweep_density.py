# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How often the latents of a sweep's evaluated members fire."""

from typing import Any

import numpy as np

from sae_jax.report import density, page, plots, sweep_words
from sae_jax.report.sweep_entry import Member, Sweep


def figures(sweep: Sweep) -> list[page.Figure]:
  """One figure, none where no member has been evaluated."""
  measured = [
    (member, member.evaluation.arrays["fires_F"], member.evaluation)
    for member in sweep.members
    if member.evaluation and member.evaluation.arrays
  ]
  if not measured:
    return []
  edges, never, axis = density.bins(
    max(found.metrics["rows"] for _, _, found in measured)
  )
  data: list[dict[str, Any]] = []
  for member, fires_F, found in measured:
    data += _traces(sweep, member, fires_F, found.metrics["rows"], edges, never)
  return [
    page.Figure(
      title="Latents by firing rate",
      caption="share of held-out rows on which a latent is active, log scale;"
      " those that never fired stand apart",
      height=300,
      spec={
        "data": data,
        "layout": plots.layout(
          x=axis,
          y={
            "title": plots.title("latents"),
            "tickformat": "~s",
            "rangemode": "tozero",
          },
          hovermode="closest",
        ),
      },
    )
  ]


def _traces(
  sweep: Sweep,
  member: Member,
  fires_F: np.ndarray,
  rows: int,
  edges: np.ndarray,
  never: float,
) -> list[dict[str, Any]]:
  """A line over the rates, and a mark for the latents that have none."""
  group = sweep_words.group_of(sweep, member)
  alive = fires_F[fires_F > 0]
  counts, _ = np.histogram(np.log10(alive / rows), edges)
  same = {
    "type": "scatter",
    "legendgroup": group.id,
    "name": plots.escaped(sweep_words.label(sweep, member)),
    "cliponaxis": False,
  }
  centres = (edges[:-1] + edges[1:]) / 2
  return [
    same
    | {
      "mode": "lines",
      **sweep_words.identity(sweep, member),
      "x": plots.short(centres),
      "y": counts.tolist(),
      "customdata": density.spans(edges),
      "hovertemplate": "%{fullData.name}<br>%{y:,} latents: %{customdata}"
      "<extra></extra>",
      "line": {
        "color": group.colour,
        "width": 1.5,
        "dash": group.dash,
        "shape": "hvh",
      },
    },
    same
    | {
      "mode": "markers",
      **sweep_words.identity(sweep, member, "never"),
      "x": [never],
      "y": [int(np.sum(fires_F == 0))],
      "hovertemplate": "%{fullData.name}<br>%{y:,} latents: never"
      "<extra></extra>",
      "marker": {"color": group.colour, "symbol": group.symbol, "size": 9},
    },
  ]
