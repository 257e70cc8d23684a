# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The frontier of dictionaries that were trained or evaluated one by one.

Also of all that a page shows, where sweeps are among it.
"""

from collections.abc import Sequence
from typing import Any

from sae_jax.report import (
  evaluations,
  frontier,
  groups,
  page,
  sweep_page,
  sweep_words,
)
from sae_jax.report.entries import Entry
from sae_jax.report.sweep_entry import Sweep


def sections(entries: Sequence[Entry]) -> list[page.Section]:
  """One section, none where there is nothing to compare."""
  made = groups.apart("run", [entry.name for entry in entries])
  points = [
    _point(entry, group) for entry, group in zip(entries, made, strict=True)
  ]
  return _sections("frontier", "Frontier", points, made)


def together(
  sweeps: Sequence[Sweep], entries: Sequence[Entry]
) -> list[page.Section]:
  """All members of all sweeps, and the other dictionaries, on one plot."""
  sources = [sweep.name for sweep in sweeps]
  if entries:
    sources.append("trained one by one")
  if len(sources) < 2:
    return []
  made = groups.apart("all", sources)
  points = []
  for sweep, group in zip(sweeps, made, strict=False):
    points += sweep_page.points(sweep, group)
  points += [_point(entry, made[-1]) for entry in entries]
  return _sections("all-frontier", "All dictionaries", points, made)


def _sections(
  name: str,
  title: str,
  points: Sequence[frontier.Point],
  made: Sequence[groups.Group],
) -> list[page.Section]:
  chosen = frontier.choose(points)
  if len(chosen.shown) < 2:
    return []
  diverged = any(not points[i].whole for i in chosen.shown)
  return [
    page.Section(
      id=name,
      title=title,
      blocks=[
        page.text(frontier.source_words(points, chosen)),
        groups.key("", made, diverged=diverged, front=True),
        page.figures([frontier.figure(points, chosen)], wide=True),
      ],
    )
  ]


def _point(entry: Entry, group: groups.Group) -> frontier.Point:
  return frontier.Point(
    name=entry.name,
    about=_about(entry),
    group=group,
    measured=_measured(entry),
  )


def _about(entry: Entry) -> str:
  """What the dictionary is: k 32, lr 2e-4, blocks.9.hook_resid_post."""
  recorded = entry.config or {}  # an evaluation's own where there is no run
  config = recorded["config"] if recorded.get("job") == "train" else {}
  sae = entry.sae or config.get("sae", {})
  words = []
  if k := sae.get("k"):
    words.append(f"k {k}")
  rate: Any = config.get("optimizer", {}).get("learning_rate")
  if rate is not None:
    words.append(f"lr {sweep_words.value('learning_rate', rate)}")
  found = entry.evaluation.metrics if entry.evaluation else {}
  words.append(config.get("hook") or found.get("hook") or "")
  return ", ".join(filter(None, words))


def _measured(entry: Entry) -> dict[str, frontier.Measured]:
  config = entry.config or {}
  last: dict[str, float | None] = {}
  for line in entry.metrics:
    last.update({k: v for k, v in line.items() if v is not None})
  found = frontier.measured_in_training(
    last,
    evaluations.data(
      (config.get("config") or {}).get("hook"),
      {
        k: v
        for k, v in (config.get("inputs") or {}).items()
        if k != "init_from"
      },
    ),
  )
  if entry.evaluation:
    numbers = entry.evaluation.metrics
    if "eval/fvu" in numbers and "eval/l0" in numbers:
      found["evaluation"] = frontier.Measured(
        numbers["eval/fvu"], numbers["eval/l0"], entry.evaluation.data
      )
  return found
