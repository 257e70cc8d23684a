# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Volcano plots: how far every latent moved, against how sure that is."""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sae_jax.report import diff_words, page, plots, say
from sae_jax.report.diff_entry import Diff, Part

# What a plot holds at most: a browser draws 2,500 marks in some 50 ms.
MOST_CHANGED = 1500
MOST_OTHERS = 1000
_LEAST_P = 1e-45  # the smallest float32 > 0
_COLUMNS = (
  *("score", "p", "q", "changed", "ci_low", "ci_high"),
  *("mean_base", "mean_tuned", "mean_control", "fires_base", "fires_tuned"),
)


class _Cloud(NamedTuple):
  """The latents of one part that are drawn."""

  part: Part
  latents: np.ndarray  # those drawn
  columns: dict[str, np.ndarray]  # of those drawn
  height: np.ndarray  # −log10 p
  line: float | None  # −log10 of the largest p that passes q
  total: int
  changed: int


def figures(
  diff: Diff, parts: Sequence[Part]
) -> list[tuple[Part, page.Figure]]:
  """One plot per part that has p-values, all on the first ones' scales.

  Args:
    parts: claims first; parts that are wider than the claims get a scale of
      their own.
  """
  clouds = [c for part in parts if (c := _cloud(diff, part)) is not None]
  if not clouds:
    return []
  claims = [c for c in clouds if c.part in diff.claims] or clouds
  reach = max(_reach(cloud) for cloud in claims)
  top = max(_top(cloud) for cloud in claims)
  return [
    (
      cloud.part,
      _figure(diff, cloud, max(reach, _reach(cloud)), max(top, _top(cloud))),
    )
    for cloud in clouds
  ]


def _cloud(diff: Diff, part: Part) -> _Cloud | None:
  found = diff.columns(part, _COLUMNS)
  known = np.isfinite(found["score"]) & np.isfinite(found["p"])
  if not known.any():
    return None
  changed_F = found["changed"] & known
  keep = _strongest(np.flatnonzero(changed_F), found["score"], MOST_CHANGED)
  others = np.flatnonzero(known & ~changed_F)
  if len(others) > MOST_OTHERS:
    rng = np.random.default_rng(0)
    others = rng.choice(others, MOST_OTHERS, replace=False)
  drawn = np.sort(np.concatenate([keep, others]))
  limit = diff.summary["statistics"]["q"] if diff.summary else 0.05
  passing = found["p"][known & (found["q"] <= limit)]
  return _Cloud(
    part=part,
    latents=drawn,
    columns={name: values[drawn] for name, values in found.items()},
    height=-np.log10(np.maximum(found["p"][drawn], _LEAST_P)),
    line=float(-np.log10(max(passing.max(), _LEAST_P)))
    if len(passing)
    else None,
    total=int(known.sum()),
    changed=int(changed_F.sum()),
  )


def _strongest(
  latents: np.ndarray, score_F: np.ndarray, most: int
) -> np.ndarray:
  if len(latents) <= most:
    return latents
  order = np.argsort(-np.abs(score_F[latents]), kind="stable")
  return latents[order[:most]]


def _reach(cloud: _Cloud) -> float:
  return 1.12 * float(np.abs(cloud.columns["score"]).max()) or 1.0


def _top(cloud: _Cloud) -> float:
  return max(1.08 * float(cloud.height.max()), 2.0)


def _figure(diff: Diff, cloud: _Cloud, reach: float, top: float) -> page.Figure:
  changed, up = cloud.columns["changed"], cloud.columns["score"] > 0
  traces = [
    _trace(diff, cloud, ~changed, "not changed", "var(--soft)", "circle"),
    _trace(diff, cloud, changed & up, "risen", plots.RISEN, "triangle-up"),
    _trace(diff, cloud, changed & ~up, "fallen", plots.FALLEN, "triangle-down"),
  ]
  layout = plots.layout(
    x={
      "title": plots.title("difference of mean activations"),
      "range": [-reach, reach],
      "zeroline": True,
      "zerolinecolor": "var(--rule)",
    },
    y={"title": plots.title("−log₁₀ p"), "range": [-0.02 * top, top]},
    legend=True,
    shapes=_threshold(cloud),
    hovermode="closest",
  )
  return page.Figure(
    title=_title(diff, cloud.part),
    caption=_caption(diff, cloud),
    spec={"data": [t for t in traces if t["x"]], "layout": layout},
    height=340,
    jump=f"{diff.prefix}{cloud.part.dictionary}-",
  )


def _title(diff: Diff, part: Part) -> str:
  return diff_words.arm(part.arm)


def _caption(diff: Diff, cloud: _Cloud) -> str:
  words = f"{diff_words.compared(diff, cloud.part)}; "
  words += f"{cloud.changed:,} of {cloud.total:,} latents changed"
  changed = int(cloud.columns["changed"].sum())
  if changed < cloud.changed:
    words += f", the {changed:,} largest are drawn"
  others = len(cloud.latents) - changed
  if others < cloud.total - cloud.changed:
    words += f"; of the others a random {others:,}"
  return words


def _threshold(cloud: _Cloud) -> list[dict[str, Any]]:
  """A line at the largest p that passes the false discovery rate."""
  if cloud.line is None:
    return []
  return [
    {
      "type": "line",
      "xref": "paper",
      "x0": 0,
      "x1": 1,
      "y0": cloud.line,
      "y1": cloud.line,
      "line": {"color": "var(--soft)", "width": 1, "dash": "dot"},
    }
  ]


def _trace(
  diff: Diff,
  cloud: _Cloud,
  chosen: np.ndarray,
  name: str,
  colour: str,
  symbol: str,
) -> dict[str, Any]:
  at = np.flatnonzero(chosen)
  latents = cloud.latents[at].tolist()
  ringed = [(cloud.part.dictionary, n) in diff.card_of for n in latents]
  quiet = name == "not changed"
  return {
    "type": "scatter",
    "mode": "markers",
    "name": name,
    "x": plots.short(cloud.columns["score"][at]),
    "y": plots.short(cloud.height[at]),
    "customdata": latents,
    "text": [_hover(diff, cloud, i, brief=quiet) for i in at.tolist()],
    "hovertemplate": "%{text}<extra></extra>",
    "cliponaxis": False,
    "marker": {
      "color": colour,
      "symbol": symbol,
      "size": 5 if quiet else [12 if ring else 8 for ring in ringed],
      "opacity": 0.35 if quiet else 0.9,
      "line": {
        "color": "var(--ink)",
        "width": [1.5 if ring else 0 for ring in ringed],
      },
    },
  }


def _hover(diff: Diff, cloud: _Cloud, i: int, *, brief: bool) -> str:
  """Plotly reads hover text as markup: what comes from tokens is escaped."""
  row = {name: values[i] for name, values in cloud.columns.items()}
  latent = int(cloud.latents[i])
  card = diff.card_of.get((cloud.part.dictionary, latent))
  lines = [f"<b>latent {latent}</b>"]
  if reading := diff_words.reading(card):
    lines.append(html.escape(plots.shorten(reading, 60), quote=False))
  low, high = (diff_words.signed(row[end]) for end in ("ci_low", "ci_high"))
  lines.append(
    f"{diff_words.signed(row['score'])} [{low}, {high}],"
    f" q {say.number(row['q'], 2)}"
  )
  if verdict := diff.verdict(cloud.part.dictionary, latent):
    lines.append(f"steered: {verdict}")
  if not brief:
    lines += _means(cloud.part, row)
  return "<br>".join(lines)


def _means(part: Part, row: dict[str, Any]) -> list[str]:
  lines = []
  if np.isfinite(row["mean_tuned"]):
    words = f"base {say.number(row['mean_base'])} → {part.arm}"
    words += f" {say.number(row['mean_tuned'])}"
    if np.isfinite(row["mean_control"]):
      words += f" ({part.control} {say.number(row['mean_control'])})"
    lines.append(words)
  if np.isfinite(row["fires_tuned"]):
    lines.append(
      f"fires on {say.percent(row['fires_base'])} →"
      f" {say.percent(row['fires_tuned'])} of tokens"
    )
  return lines
