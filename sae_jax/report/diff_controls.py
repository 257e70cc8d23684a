# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the controls of a diff found: null, shuffled and benign arms."""

from typing import Any, NamedTuple

from sae_jax.report import diff_words, page, say
from sae_jax.report.diff_entry import Diff, Part


class Shuffled(NamedTuple):
  """What the rule finds with the labels of the groups shuffled."""

  times: int
  mean: float  # latents per shuffle
  any: float  # share of shuffles that find anything
  rate: float | None  # mean / what it finds without shuffling


def shuffled(part: Part) -> Shuffled | None:
  found = part.summary.get("shuffled")
  if not found:
    return None
  return Shuffled(
    times=found["shuffles"],
    mean=found["mean_discoveries"],
    any=found["share_with_any"],
    rate=found["false_discovery_rate"],
  )


def section(diff: Diff) -> page.Section:
  controls: dict[str, Any] = (diff.summary or {}).get("controls") or {}
  rows = []
  for part in diff.parts:
    found = shuffled(part)
    if found is not None:
      rows.append(
        [
          f"{diff_words.method(part.method).title}, "
          + diff_words.arm(part.arm),
          f"{part.summary['tested']:,}",
          f"{part.summary['significant']:,}",
          say.number(found.mean, 2),
          say.percent(found.any),
          say.percent(found.rate),
        ]
      )
  blocks: list[page.Block] = []
  if rows:
    blocks += [
      page.heading("Labels shuffled"),
      page.text(
        "Which of the two models a group's tokens come from is decided by a"
        " coin, group by group; then everything is tested again."
      ),
      page.table(rows, head=_SHUFFLED, numbers=True),
    ]
  blocks.append(page.fold_json("controls", controls))
  return page.Section(
    id=f"{diff.prefix}controls", title="Controls", blocks=blocks
  )


_SHUFFLED = (
  *("", "tested", "found (q)", "found when shuffled, mean"),
  *("shuffles that find any", "false-discovery rate"),
)
