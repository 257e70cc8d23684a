# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The members of a sweep as a table: settings, training, evaluation."""

import dataclasses
from collections.abc import Collection

from sae_jax.report import grid, page, say, sweep_words
from sae_jax.report.sweep_entry import Member, Sweep

_LOOK = "held-out sample"
_STEP = "last training step"
_EVALUATION = "rows of its evaluation"


@dataclasses.dataclass(frozen=True)
class _Column:
  """A number of every member that has it."""

  metric: str
  text: str
  group: str
  share: bool = False  # written in percent

  def value(self, member: Member) -> float | None:
    if self.group != _EVALUATION:
      return member.last(self.metric)
    found = member.evaluation
    return found.metrics.get(self.metric) if found else None


_COLUMNS = (
  _Column("eval/fvu", "FVU", _LOOK),
  _Column("eval/l0", "L0", _LOOK),
  _Column("train/fvu", "FVU", _STEP),
  _Column("train/l0", "L0", _STEP),
  _Column("train/dead_frac", "dead latents", _STEP, share=True),
  _Column("train/auxk", "AuxK", _STEP),
  _Column("eval/fvu", "FVU", _EVALUATION),
  _Column("eval/l0", "L0", _EVALUATION),
  _Column("eval/dead_frac", "never fired", _EVALUATION, share=True),
  _Column("eval/loss_recovered", "loss recovered", _EVALUATION),
)


@dataclasses.dataclass(frozen=True)
class Settings:
  """The columns of what members differ in."""

  names: tuple[str, ...]

  def heads(self, group: str = "") -> list[grid.Head]:
    return [
      grid.Head(sweep_words.NAMES[name], number=name != "hook", group=group)
      for name in self.names
    ]

  def cells(self, member: Member) -> list[grid.Cell]:
    found = [(name, member.settings[name]) for name in self.names]
    return [
      grid.Cell(
        sweep_words.value(name, value),
        sort=None if isinstance(value, str) else value,
      )
      for name, value in found
    ]


def settings(sweep: Sweep) -> Settings:
  return Settings(tuple(reversed(sweep.varying)))


def name(sweep: Sweep, member: Member) -> grid.Cell:
  """The first cell of a member's row."""
  return grid.Cell(
    str(member.index),
    sort=-member.index,  # upwards first
    note=sweep_words.diverged(sweep, member),
  )


def number(value: float | None, *, share: bool = False) -> grid.Cell:
  said = say.percent(value) if share else say.number(value, 4)
  return grid.Cell(said, sort=value)


def section(sweep: Sweep, front: Collection[int]) -> page.Section:
  """All members, a row each.

  Args:
    sweep: the sweep.
    front: the members on the frontier.
  """
  return page.Section(
    id=f"{sweep.prefix}members",
    title="Members",
    blocks=[page.text(_words(sweep)), _table(sweep, front)],
  )


def _words(sweep: Sweep) -> str:
  words = "Press a heading to sort."
  if shared := sweep_words.shared(sweep):
    words += f" All members: {shared}."
  batch = sweep.settings.get("stream", {}).get("batch_size")
  words += (
    " Held-out sample: fixed rows that are never trained on, at the last look"
    " during training. Last training step: of the rows of that step"
    f"{f' ({batch:,})' if batch else ''}; a latent is dead when it has not"
    " fired for long, AuxK is the loss on the residual, unweighted."
  )
  if any(member.frozen_at is not None for member in sweep.members):
    words += (
      " Members that diverged stand below: their numbers are of before that"
      " step."
    )
  return words


def _table(sweep: Sweep, front: Collection[int]) -> page.Block:
  columns = _columns(sweep)
  own = settings(sweep)
  diverged = any(member.frozen_at is not None for member in sweep.members)
  heads = [grid.Head("member", wide=True), *own.heads("settings")]
  heads += [grid.Head(c.text, number=True, group=c.group) for c in columns]
  if front:
    heads.append(grid.Head("frontier"))
  if diverged:
    heads.append(grid.Head("diverged", number=True))
  rows = []
  for member in sweep.members:
    cells = [name(sweep, member), *own.cells(member)]
    cells += [number(c.value(member), share=c.share) for c in columns]
    if front:
      cells.append(grid.Cell("yes" if member.index in front else ""))
    if diverged:
      cells.append(_diverged(sweep, member))
    rows.append(
      grid.Row(
        cells,
        id=f"{sweep.prefix}member-{member.index}",
        quiet=member.frozen_at is not None,
        last=member.frozen_at is not None,
      )
    )
  return grid.block(heads, rows)


def _columns(sweep: Sweep) -> list[_Column]:
  """Those that any member has, and none of training rows beside held-out."""
  begun = [member for member in sweep.members if member.metrics]
  looked = {
    column.text
    for column in _COLUMNS
    if column.group == _LOOK
    and begun
    and all(column.value(member) is not None for member in begun)
  }
  return [
    column
    for column in _COLUMNS
    if any(column.value(member) is not None for member in sweep.members)
    and not (column.group == _STEP and column.text in looked)
  ]


def _diverged(sweep: Sweep, member: Member) -> grid.Cell:
  said = sweep_words.diverged(sweep, member)
  return grid.Cell(
    said.partition(" ")[2].removeprefix("at "), sort=member.frozen_at
  )
