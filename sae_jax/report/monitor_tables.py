# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How well every signal tells bad from benign: AUROC, alarms, leads."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax.report import grid, monitor_words, page, plots, scores
from sae_jax.report.findings import Finding

_AUROCS = (
  ("auroc_run_out", "run left out"),
  ("auroc_group_out", "base model left out"),
  ("auroc_early", "before it shows"),
  ("auroc_in_sample", "in sample"),
)
_SINGLES = 20  # latents in the table


def section(finding: Finding) -> page.Section:
  signals = finding.found.get("signals") or {}
  names = [
    *monitor_words.main(finding),
    *monitor_words.single(finding)[:_SINGLES],
  ]
  if not names:
    blocks: list[page.Block] = [page.missing("No signals were measured.")]
  else:
    figures = [f for f in (_dots(finding), _roc(finding)) if f is not None]
    blocks = [
      page.text(
        "AUROC is the share of pairs of a bad and a benign checkpoint in the"
        " right order: 0.5 is chance, the dotted line. “In sample” includes the"
        " runs that the latents were selected on, and is no evidence. Point at"
        " a bar to read its interval."
      ),
      page.figures(figures, wide=True),
      grid.block(
        _heads(finding),
        [_row(finding, name, signals[name]) for name in names],
      ),
    ]
  return page.Section(
    id=f"{finding.prefix}signals", title="Signals", blocks=blocks
  )


def _known(finding: Finding) -> list[tuple[str, str]]:
  """The kinds of AUROC that any signal has."""
  signals = (finding.found.get("signals") or {}).values()
  return [
    (key, name)
    for key, name in _AUROCS
    if any(scores.mean(found.get(key)) is not None for found in signals)
  ]


def _heads(finding: Finding) -> list[grid.Head]:
  heads = [grid.Head("", wide=True)]
  for key, name in _known(finding):
    heads.append(grid.Head("AUROC", number=True, group=name))
    if key == "auroc_run_out":
      heads.append(grid.Head("0 to 1", bar=True, group=name))
  return [
    *heads,
    grid.Head("falsely", number=True, group="alarms"),
    grid.Head("missed", number=True, group="alarms"),
    grid.Head("lead, steps", number=True, group="alarms"),
    grid.Head("doses ordered", number=True),
  ]


def _row(finding: Finding, name: str, found: Mapping[str, Any]) -> grid.Row:
  cells = [named(finding, name)]
  for key, _ in _known(finding):
    score = found.get(key)
    cells.append(
      grid.Cell(
        scores.fixed(scores.mean(score), 2),
        sort=scores.mean(score),
        strong=key == "auroc_run_out",
      )
    )
    if key == "auroc_run_out":
      cells.append(
        grid.Cell(
          "",
          bar=half(score),
          tone="up" if name == "latents" else "",
          tip=monitor_words.auroc(score),
        )
      )
  lead = found.get("lead") or {}
  dose = found.get("dose") or {}
  cells += [
    _part(found.get("false_alarms")),
    _part(found.get("missed")),
    grid.Cell(monitor_words.lead(lead), sort=lead.get("median")),
    _part({"n": dose.get("ordered"), "of": dose.get("of")}),
  ]
  return grid.Row(cells)


def named(finding: Finding, name: str) -> grid.Cell:
  if name.startswith("latent ") and name[7:].isdigit():
    known = finding.reference(int(name[7:]))
    return grid.Cell(name, href=known["href"], note=known["reading"])
  return grid.Cell(
    monitor_words.title(name),
    note=monitor_words.about(name),
    strong=name == "latents",
  )


def half(score: scores.Score) -> dict[str, float] | None:
  """A bar from 0 to 1 whose mark is at chance, not at 0."""
  place = scores.interval(score, 0, 1)
  return place and place | {"zero": 50}


def _part(found: Mapping[str, Any] | None) -> grid.Cell:
  known = bool(found and found.get("of"))
  return grid.Cell(
    monitor_words.part(found),
    sort=found["n"] / found["of"] if known and found else None,
  )


def _dots(finding: Finding) -> page.Figure | None:
  """AUROC of the signals with their intervals, one below the other."""
  signals = finding.found.get("signals") or {}
  names = [
    *monitor_words.main(finding),
    *monitor_words.single(finding)[:3],
  ][::-1]
  data = []
  for key, name, colour, symbol in (
    ("auroc_run_out", "run left out", plots.FALLEN, "circle"),
    ("auroc_group_out", "base model left out", "var(--c3)", "diamond"),
    ("auroc_in_sample", "in sample", "var(--soft)", "circle-open"),
  ):
    known = [
      (n, score)
      for n in names
      if scores.mean(score := signals[n].get(key)) is not None
    ]
    if known:
      data.append(_dot_trace(known, name, colour, symbol))
  if not data:
    return None
  layout = plots.layout(
    x={"title": plots.title("AUROC"), "range": [-0.02, 1.03]},
    y={
      "type": "category",
      "categoryorder": "array",
      "categoryarray": [monitor_words.title(n) for n in names],
    },
    legend=True,
    hovermode="closest",
    scattermode="group",
    shapes=[_chance({"x0": 0.5, "x1": 0.5, "yref": "paper", "y0": 0, "y1": 1})],
  )
  layout["margin"]["l"] = 172
  return page.Figure(
    title="How well each signal tells bad checkpoints",
    caption="with intervals over runs; dotted: chance",
    height=90 + 34 * len(names),
    spec={"data": data, "layout": layout},
  )


def _chance(place: dict[str, Any]) -> dict[str, Any]:
  line = {"color": "var(--soft)", "width": 1, "dash": "dot"}
  return {"type": "line", **place, "line": line}


def _dot_trace(
  known: Sequence[tuple[str, scores.Score]],
  name: str,
  colour: str,
  symbol: str,
) -> dict[str, Any]:
  ends = [e for _, score in known if (e := scores.ends(score)) is not None]
  return {
    "type": "scatter",
    "mode": "markers",
    "orientation": "h",
    "name": name,
    "x": plots.short(value for value, _, _ in ends),
    "y": [monitor_words.title(n) for n, _ in known],
    "error_x": plots.error_bars(ends, colour, 1.4),
    "text": [
      plots.escaped(
        monitor_words.title(n), f"{name}: {monitor_words.auroc(score)}"
      )
      for n, score in known
    ],
    "hovertemplate": "%{text}<extra></extra>",
    "cliponaxis": False,
    "marker": {"color": colour, "symbol": symbol, "size": 8},
  }


def _roc(finding: Finding) -> page.Figure | None:
  signals = finding.found.get("signals") or {}
  shown = [n for n in monitor_words.main(finding) if signals[n].get("roc")]
  if not shown:
    return None
  data = [
    {
      "type": "scatter",
      "mode": "lines",
      "name": monitor_words.title(name),
      "x": plots.short(x for x, _ in signals[name]["roc"]),
      "y": plots.short(y for _, y in signals[name]["roc"]),
      "hovertemplate": f"{monitor_words.title(name)}: %{{y:.0%}} caught at"
      " %{x:.0%} false alarms<extra></extra>",
      "cliponaxis": False,
      "line": {
        "color": plots.colour(i),
        "width": 2.4 if name == "latents" else 1.5,
        "dash": "solid" if name == "latents" else "dash",
      },
    }
    for i, name in enumerate(shown[: plots.COLOURS])
  ]
  axis = {"range": [-0.02, 1.03], "tickformat": ".0%"}
  return page.Figure(
    title="Caught against falsely accused",
    caption="all checkpoints of the tested runs, pooled within groups",
    height=340,
    spec={
      "data": data,
      "layout": plots.layout(
        x={"title": plots.title("benign checkpoints above"), **axis},
        y={"title": plots.title("bad checkpoints above"), **axis},
        legend=True,
        hovermode="closest",
        shapes=[_chance({"x0": 0, "x1": 1, "y0": 0, "y1": 1})],
      ),
    },
  )
