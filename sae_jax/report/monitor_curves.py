# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every run's signals, with the threshold, its alarms and its behaviour."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax.report import monitor_words, page, plots, say, scores
from sae_jax.report.findings import Finding

_GROUPS = 4  # unfolded; the rest is for those who want it
_SIGNALS = 1  # unfolded, of each group, beside the behaviour
# A role's colour, and the dash of runs that are not tested.
_ROLES = {"suspect": plots.RISEN, "benign": plots.FALLEN}


def section(finding: Finding) -> page.Section:
  groups = finding.found.get("groups") or ()
  drawn = [group for group in groups if _series(group)]
  if not drawn:
    blocks: list[page.Block] = [
      page.missing(
        "No run has more than one checkpoint, so there are no trajectories:"
        " give RunConfig.series a directory of step directories."
      )
    ]
  else:
    blocks = [
      page.text(
        "One line a run: orange suspect, blue benign, dashed those on which the"
        " latents were selected. Dotted: the threshold. A triangle marks the"
        " alarm, a cross the checkpoint at which the behaviour first shows."
        " Signals are shifts against the base in units of its mean residual"
        " norm."
      )
    ]
    for i, group in enumerate(drawn):
      blocks += _group(
        finding, group, several=len(drawn) > 1, fold=i >= _GROUPS
      )
  return page.Section(id=f"{finding.prefix}runs", title="Runs", blocks=blocks)


def _series(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """Runs with more than the base and a last checkpoint come first."""
  runs = [
    run
    for run in group.get("runs") or ()
    if len(run.get("checkpoints") or ()) > 1
  ]
  return sorted(runs, key=lambda run: run.get("role") != "benign")


def _group(
  finding: Finding, group: Mapping[str, Any], *, several: bool, fold: bool
) -> list[page.Block]:
  signals = finding.found.get("signals") or {}
  names = [n for n in monitor_words.main(finding) if n in signals]
  runs = _series(group)
  figures = [
    _figure(group, runs, name, (signals[name] or {}).get("threshold"))
    for name in names
    if any(name in c["signals"] for run in runs for c in run["checkpoints"])
  ]
  shown = [*figures[:_SIGNALS], _behaviour(finding, group, runs)]
  blocks: list[page.Block] = []
  if several and not fold:
    blocks.append(page.heading(group["name"]))
  blocks.append(page.figures(shown, wide=True))
  if rest := figures[_SIGNALS:]:
    words = f"{len(rest)} other signals"
    blocks.append(page.fold(words, [page.figures(rest, wide=True)]))
  return [page.fold(group["name"], blocks)] if fold else blocks


def _figure(
  group: Mapping[str, Any],
  runs: Sequence[Mapping[str, Any]],
  signal: str,
  threshold: float | None,
) -> page.Figure:
  data = [
    _line(
      run,
      [c["signals"].get(signal) for c in run["checkpoints"]],
      [say.number(c["signals"].get(signal)) for c in run["checkpoints"]],
    )
    for run in runs
  ]
  data += [
    trace
    for trace in (
      _marks(runs, signal, "alarm", "alarm", "triangle-up"),
      _marks(runs, signal, "crossing", "behaviour shows", "x"),
    )
    if trace["x"]
  ]
  return page.Figure(
    title=_capital(monitor_words.title(signal)),
    caption=monitor_words.about(signal),
    height=300,
    spec={
      "data": data,
      "layout": _layout(
        "shift over norm",
        [] if threshold is None else [plots.level(threshold)],
      ),
    },
  )


def _capital(words: str) -> str:
  return words[:1].upper() + words[1:]


def _layout(y: str, shapes: list[dict[str, Any]]) -> dict[str, Any]:
  return plots.layout(
    x={"title": plots.title("step"), "tickformat": "~s"},
    y={"title": plots.title(y)},
    shapes=shapes,
    hovermode="closest",
    legend=True,
  )


def _line(
  run: Mapping[str, Any],
  values: Sequence[float | None],
  words: Sequence[str],
) -> dict[str, Any]:
  steps = [c["step"] for c in run["checkpoints"]]
  known = [i for i, value in enumerate(values) if value is not None]
  role = run.get("role") or ""
  about = f"{role}{_dose(run)}"
  return {
    "type": "scatter",
    "mode": "lines",
    "name": run["name"],
    "x": [steps[i] for i in known],
    "y": plots.short(values[i] or 0.0 for i in known),
    "text": [
      plots.escaped(
        run["name"], about, f"step {steps[i]:,}: {words[i]}", _selected(run)
      )
      for i in known
    ],
    "hovertemplate": "%{text}<extra></extra>",
    "showlegend": False,
    "cliponaxis": False,
    "opacity": 0.85,
    "line": {
      "color": _ROLES.get(role, "var(--soft)"),
      "width": 1.8,
      "dash": "dash" if run.get("selection") else "solid",
    },
  }


def _selected(run: Mapping[str, Any]) -> str:
  return "latents were selected on it" if run.get("selection") else ""


def _dose(run: Mapping[str, Any]) -> str:
  if run.get("dose") is None:
    return ""
  return f", {scores.percent(run['dose'])} bad data"


def _marks(
  runs: Sequence[Mapping[str, Any]],
  signal: str,
  key: str,
  name: str,
  symbol: str,
) -> dict[str, Any]:
  """Alarms of a signal, or where the behaviour begins to show."""
  x, y, text = [], [], []
  for run in runs:
    at = run.get(key)
    at = (at or {}).get(signal) if key == "alarm" else at
    values = {c["step"]: c["signals"].get(signal) for c in run["checkpoints"]}
    if at is None or values.get(at) is None:
      continue
    lead = (run.get("lead") or {}).get(signal)
    x.append(at)
    y.append(values[at])
    text.append(
      plots.escaped(
        f"{name}: {run['name']}",
        f"step {at:,}",
        f"lead {lead:+,} steps".replace("-", "−") if lead is not None else "",
      )
    )
  return {
    "type": "scatter",
    "mode": "markers",
    "name": name,
    "x": x,
    "y": plots.short(y),
    "text": text,
    "hovertemplate": "%{text}<extra></extra>",
    "cliponaxis": False,
    "marker": {
      "color": "var(--ink)",
      "symbol": symbol,
      "size": 9 if symbol == "x" else 11,
      "line": {"color": "var(--paper)", "width": 1},
    },
  }


def _behaviour(
  finding: Finding,
  group: Mapping[str, Any],
  runs: Sequence[Mapping[str, Any]],
) -> page.Figure:
  """What the models answer, by the measure that the threshold is on."""
  about = finding.found.get("behaviour") or {}
  shift = about.get("measure") == "margin_shift"
  key = "margin" if shift else "p_behaviour"
  start = 0.0
  if shift:
    start = scores.mean((group.get("reference") or {}).get("margin")) or 0.0
  data = []
  for run in runs:
    found = [c.get(key) for c in run["checkpoints"]]
    values = [scores.mean(score) for score in found]
    data.append(
      _line(
        run,
        [None if v is None else v - start for v in values],
        [scores.with_bounds(score) for score in found],
      )
    )
  limit = about.get("threshold")
  return page.Figure(
    title="Behaviour",
    caption="margin above the base's" if shift else "P(behaviour) per token",
    height=300,
    spec={
      "data": data,
      "layout": _layout(
        "nats per token" if shift else "per token",
        [] if limit is None else [plots.level(limit)],
      )
      | {"showlegend": False},
    },
  )
