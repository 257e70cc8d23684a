# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What evaluations found of a sweep's members, beside each other."""

from collections.abc import Sequence
from typing import Any

from sae_jax.report import (
  grid,
  page,
  say,
  sweep_density,
  sweep_table,
  sweep_words,
)
from sae_jax.report.sweep_entry import Member, Sweep

_COLUMNS = (
  ("eval/explained_variance", "explained variance"),
  ("eval/cosine", "cosine"),
  ("eval/norm_ratio", "‖x̂‖ / ‖x‖"),
  ("eval/ce_clean", "CE clean, nats"),
  ("eval/ce_spliced", "CE spliced, nats"),
  ("eval/ce_zero", "CE zero, nats"),
  ("eval/kl", "KL, nats"),
)


def section(sweep: Sweep) -> page.Section:
  """A row for every evaluated member, and how often latents fire."""
  blocks: list[page.Block] = []
  if evaluated := [m for m in sweep.members if m.evaluation]:
    blocks.append(page.text(_words(evaluated)))
    blocks.append(_table(sweep, evaluated))
    if drawn := sweep_density.figures(sweep):
      blocks += [
        *sweep_words.key(sweep, crosses=False),
        page.figures(drawn, wide=True),
      ]
  blocks += _missing(sweep, len(evaluated))
  return page.Section(
    id=f"{sweep.prefix}evaluations", title="Evaluations", blocks=blocks
  )


def _words(evaluated: Sequence[Member]) -> str:
  words = ""
  if any("eval/ce_clean" in _found(member) for member in evaluated):
    words = (
      "CE: cross-entropy of the language model, nats per token, when it reads"
      " at the hook its own activations (clean), reconstructions (spliced) or"
      " zeros. Loss recovered: (CE zero − CE spliced) / (CE zero − CE clean)."
      " KL: of the next token, clean against spliced. "
    )
  first = evaluated[0]
  where = first.evaluation.path if first.evaluation else ""
  return words + (
    f"The latents themselves, member by member: sae-jax report {where} shows"
    f" those of member {first.index}."
  )


def _table(sweep: Sweep, evaluated: Sequence[Member]) -> page.Block:
  settings = sweep_table.settings(sweep)
  shown = [
    (metric, text)
    for metric, text in _COLUMNS
    if any(metric in _found(member) for member in evaluated)
  ]
  with_interval = any(_interval(_found(member)) for member in evaluated)
  heads = [
    grid.Head("member", wide=True),
    *settings.heads(),
    grid.Head("rows", number=True),
    *(grid.Head(text, number=True) for _, text in shown),
  ]
  if with_interval:
    heads += [
      grid.Head("loss recovered", number=True),
      grid.Head("95 % interval", note=True),
    ]
  rows = []
  for member in evaluated:
    found = _found(member)
    cells = [sweep_table.name(sweep, member), *settings.cells(member)]
    cells.append(
      grid.Cell(say.count(found.get("rows")), sort=found.get("rows"))
    )
    cells += [sweep_table.number(found.get(metric)) for metric, _ in shown]
    if with_interval:
      cells += _recovered(found)
    rows.append(grid.Row(cells))
  return grid.block(heads, rows)


def _found(member: Member) -> dict[str, Any]:
  return member.evaluation.metrics if member.evaluation else {}


def _recovered(found: dict[str, Any]) -> list[grid.Cell]:
  return [
    sweep_table.number(found.get("eval/loss_recovered")),
    grid.Cell(_interval(found)),
  ]


def _interval(found: dict[str, Any]) -> str:
  low, high = found.get("eval/loss_recovered_95") or (None, None)
  return "" if low is None else f"{low:.4f} to {high:.4f}"


def _missing(sweep: Sweep, evaluated: int) -> list[page.Block]:
  """The commands that evaluate the members that have not been."""
  if sweep.manifest is None:
    words = "Members are evaluated when the run is done."
    return [] if evaluated else [page.missing(words)]
  left = [str(m.index) for m in sweep.members if m.evaluation is None and m.sae]
  if not left:
    return []
  return [
    page.missing(
      f"{len(left)} of {len(sweep.members)} members not evaluated yet. This"
      " evaluates them, and the next report shows it:",
      f"for i in {' '.join(left)}; do\n"
      "  sae-jax evaluate --config=configs/FILE.py"
      f" --config.run={sweep.path}/sae/$i --out={sweep.path}/eval/$i\n"
      "done",
    )
  ]
