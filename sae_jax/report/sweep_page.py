# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a sweep: its frontier, its members, how they trained."""

import dataclasses
import pathlib
from collections.abc import Sequence

from sae_jax.report import (
  evaluations,
  frontier,
  page,
  say,
  sweep_curves,
  sweep_evaluations,
  sweep_table,
  sweep_words,
  training_run,
)
from sae_jax.report.groups import Group
from sae_jax.report.sweep_entry import Member, Sweep


def title(sweep: Sweep) -> str:
  """How many, of which model and where."""
  count = len(sweep.members)
  words = f"Sweep of {count:,} dictionar{'y' if count == 1 else 'ies'}"
  model = next(
    (
      name
      for member in sweep.members
      if (name := (member.sae or {}).get("metadata", {}).get("model_name"))
    ),
    "",
  )
  if model.startswith(("/", "~", ".")):  # a path; a hub id is a name
    model = pathlib.PurePath(model).name
  hooks = sweep_words.values(sweep, "hook")
  where = hooks[0] if len(hooks) == 1 else f"{len(hooks)} hooks"
  return ", ".join(filter(None, [words, model, where]))


def lead(sweep: Sweep) -> str:
  """In one line: width, how it was trained, what differs."""
  words = (
    f"{sweep.name}: {len(sweep.members)} sparse autoencoders of"
    f" {sweep.settings['sae']['latents']:,} latents, trained on the same tokens"
    " in one run"
  )
  for name in reversed(sweep.varying):
    words += f"; {sweep_words.NAMES[name]} {sweep_words.span(sweep, name)}"
  return words


def points(sweep: Sweep, group: Group | None = None) -> list[frontier.Point]:
  """The members on a frontier, in their own colours or in one."""
  return [
    frontier.Point(
      name=sweep_words.label(sweep, member),
      about=sweep_words.diverged(sweep, member),
      group=group or sweep_words.group_of(sweep, member),
      measured=_measured(sweep, member),
      whole=member.frozen_at is None,
      anchor=f"member-{member.index}",
    )
    for member in sweep.members
  ]


def sections(sweep: Sweep) -> list[page.Section]:
  shown = points(sweep)
  chosen = frontier.choose(shown)
  front = [i for some in chosen.front for i in some]
  origin = training_run.provenance([sweep_curves.run_entry(sweep)])
  return [
    _summary(sweep, chosen),
    _frontier(sweep, shown, chosen),
    sweep_table.section(sweep, front),
    sweep_evaluations.section(sweep),
    sweep_curves.section(sweep),
    dataclasses.replace(origin, id=f"{sweep.prefix}provenance"),
  ]


def _measured(sweep: Sweep, member: Member) -> dict[str, frontier.Measured]:
  stores = sweep.config.get("inputs") or {}
  found = frontier.measured_in_training(
    {
      name: member.last(name)
      for name in ("eval/fvu", "eval/l0", "train/fvu", "train/l0")
    },
    evaluations.data(member.settings["hook"], stores),
  )
  if member.evaluation:
    numbers = member.evaluation.metrics
    if "eval/fvu" in numbers and "eval/l0" in numbers:
      found["evaluation"] = frontier.Measured(
        numbers["eval/fvu"], numbers["eval/l0"], member.evaluation.data
      )
  return found


def _summary(sweep: Sweep, chosen: frontier.Chosen) -> page.Section:
  blocks = [page.tiles(_tiles(sweep, chosen))]
  if ended := [m for m in sweep.members if m.frozen_at is not None]:
    blocks.append(
      page.missing(
        "Diverged, and kept as they were before that step: "
        + "; ".join(
          f"{sweep_words.label(sweep, member)},"
          f" {sweep_words.diverged(sweep, member).removeprefix('diverged ')}"
          for member in ended
        )
        + ". A lower learning rate often helps."
      )
    )
  if sweep.manifest is None:
    blocks.append(page.unfinished("train", sweep.name, sweep.path))
  if sweep.unused:
    given = ", ".join(str(found.path) for found in sweep.unused)
    blocks.append(
      page.text(
        "A member is shown with one evaluation of its own; these are of a"
        f" member that has another: {given}."
      )
    )
  return page.Section(
    id=f"{sweep.prefix}summary", title="Summary", blocks=blocks
  )


def _tiles(sweep: Sweep, chosen: frontier.Chosen) -> list[page.Tile]:
  count = len(sweep.members)
  ended = sum(member.frozen_at is not None for member in sweep.members)
  tiles = [
    page.Tile(
      "Members", f"{count:,}", f"{ended} diverged" if ended else "none diverged"
    )
  ]
  tiles += _best(sweep, chosen)
  result = (sweep.manifest or {}).get("result", {})
  batch = sweep.settings.get("stream", {}).get("batch_size")
  tokens = result.get("tokens", batch and batch * sweep.steps_done)
  steps = f"{sweep.steps_done:,} of {sweep.settings['steps']:,} steps"
  if sweep.manifest:
    steps = f"{sweep.settings['steps']:,} steps"
  rates = [
    m["perf/tokens_per_s"]
    for m in sweep.metrics[-1:]
    if m.get("perf/tokens_per_s")
  ]
  return [
    *tiles,
    page.Tile(
      "Training tokens",
      say.count(tokens),
      f"{steps}, the same for every member",
    ),
    page.Tile(
      "Wall time",
      say.duration((sweep.manifest or {}).get("wall_s")),
      f"{say.count(rates[0])} tokens/s at the end" if rates else "",
    ),
  ]


def _best(sweep: Sweep, chosen: frontier.Chosen) -> list[page.Tile]:
  """The end of the frontier: the lowest FVU at any L0."""
  if len(chosen.front) != 1:
    return []
  member = sweep.members[chosen.front[0][-1]]
  measured = _measured(sweep, member)[chosen.source]
  apart = sweep_words.told_apart(sweep, member)
  return [
    page.Tile(
      "Lowest FVU",
      say.number(measured.fvu),
      f"member {member.index}" + (f": {apart}" if apart else ""),
    ),
    page.Tile("L0 of that member", say.number(measured.l0), _rows(chosen)),
    page.Tile(
      "On the frontier",
      f"{len(chosen.front[0])}",
      f"of {len(chosen.shown)} members",
    ),
  ]


def _rows(chosen: frontier.Chosen) -> str:
  return {
    "evaluation": "rows of its evaluation",
    "look": "held-out sample",
    "training": "last training step",
  }[chosen.source]


def _frontier(
  sweep: Sweep, shown: Sequence[frontier.Point], chosen: frontier.Chosen
) -> page.Section:
  if not chosen.source:
    blocks: list[page.Block] = [
      page.missing("No member has logged an FVU and an L0 yet.")
    ]
  else:
    blocks = [
      page.text(
        f"{frontier.source_words(shown, chosen)} Click a mark to find its row"
        " in the table."
      ),
      *sweep_words.key(sweep, front=True),
      page.figures(
        [frontier.figure(shown, chosen, jump=sweep.prefix)], wide=True
      ),
    ]
  return page.Section(
    id=f"{sweep.prefix}frontier", title="Frontier", blocks=blocks
  )
