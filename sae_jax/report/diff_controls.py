# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the controls of a diff found: null, shuffled and benign arms."""

from typing import Any, NamedTuple

from sae_jax.report import diff_words, page, say
from sae_jax.report.diff_entry import Diff, Part


class Shuffled(NamedTuple):
  """What passes q with the labels of the groups shuffled."""

  times: int
  mean: float  # latents per shuffle
  any: float  # share of shuffles that find any
  found: int  # latents that pass q unshuffled
  rate: float | None  # mean / found


def shuffled(diff: Diff, part: Part) -> Shuffled | None:
  found = _controls(diff).get("shuffled", {}).get(part.name)
  if found is None:
    return None
  return Shuffled(
    times=found["shuffles"],
    mean=found["mean_discoveries"],
    any=found["share_with_any"],
    found=found["significant"],
    rate=found["false_discovery_rate"],
  )


def noise_is_known(diff: Diff) -> bool:
  """Whether the rule asks for more than numerical noise."""
  return bool(_controls(diff).get("rule", {}).get("numerical_noise"))


def section(diff: Diff) -> page.Section:
  """Null arms, benign arms, shuffled labels, rank stability."""
  blocks = [*_null(diff), *_benign(diff), *_shuffled(diff), *_stability(diff)]
  if not blocks:
    blocks = [
      page.missing(
        "There are no controls. “frozen” makes them: with null_arm=True the"
        " base runs twice, and an arm of role control is subtracted."
      )
    ]
  return page.Section(
    id=f"{diff.prefix}controls", title="Controls", blocks=blocks
  )


def _controls(diff: Diff) -> dict[str, Any]:
  return (diff.summary or {}).get("controls") or {}


def _null(diff: Diff) -> list[page.Block]:
  found = _controls(diff).get("null")
  if not found:
    return []
  rows = [
    [
      diff_words.arm(name),
      f"{row['changed']:,}",
      f"{row['significant']:,}",
      f"{row['tested']:,}",
      say.percent(row["false_discovery_rate"]),
      say.number(row["largest"]),
    ]
    for name, row in found.items()
  ]
  return [
    page.heading("Null arms: nothing should change"),
    page.table(rows, head=_NULL, numbers=True),
  ]


_NULL = ("", "changed", "pass q alone", "tested", "share", "largest difference")


def _benign(diff: Diff) -> list[page.Block]:
  found = _controls(diff).get("benign")
  if not found:
    return []
  rows = [
    [
      name,
      row["control"],
      f"{row['plain']:,}",
      f"{row['shared']:,}",
      say.percent(row["false_discovery_rate"]),
      f"{row['contrast']:,}",
      f"{row['contrast_shared']:,}",
      say.percent(row["contrast_false_discovery_rate"]),
    ]
    for name, row in found.items()
  ]
  return [
    page.heading("Benign fine-tuning: how much of a plain difference it makes"),
    page.text(
      "“Shared” are the latents that moved in the same direction in the control"
      " arm, where they cannot stand for the behaviour. On the left without,"
      " on the right after subtracting the control."
    ),
    page.table(rows, head=_BENIGN, numbers=True),
  ]


_BENIGN = (
  *("", "control", "plain: changed", "shared", "share"),
  *("beyond control: changed", "shared", "share"),
)


def _shuffled(diff: Diff) -> list[page.Block]:
  rows = []
  for part in diff.parts:
    found = shuffled(diff, part)
    if found is not None:
      rows.append(
        [
          diff_words.part(part),
          f"{found.found:,}",
          say.number(found.mean, 2),
          say.percent(found.any),
          say.percent(found.rate),
        ]
      )
  if not rows:
    return []
  return [
    page.heading("Labels shuffled"),
    page.text(
      "The two sides of every group are exchanged at random, then everything is"
      " tested again. Counted is what passes q alone, which is rather more than"
      " what would pass the whole rule."
    ),
    page.table(rows, head=_SHUFFLED, numbers=True),
  ]


_SHUFFLED = (
  *("", "pass q", "shuffled, mean", "shuffles with any"),
  "false-discovery rate",
)


def _stability(diff: Diff) -> list[page.Block]:
  found = _controls(diff).get("stability")
  if not found:
    return []
  rows = [
    [
      diff_words.part(part),
      say.percent(found[part.name]["risen"]),
      say.percent(found[part.name]["fallen"]),
    ]
    for part in diff.parts
    if part.name in found
  ]
  top = next(iter(found.values()))["top"]
  return [
    page.heading("Stability of the ranking"),
    page.text(
      f"Mean share of resamples in which the first {top:,} stay among the"
      f" first {top:,}."
    ),
    page.table(rows, head=("", "risen", "fallen"), numbers=True),
  ]
