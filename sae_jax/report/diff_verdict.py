# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The verdict: what changed in each arm, beside what the controls produce."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sae_jax.report import diff_controls, diff_entry, diff_words, page, say
from sae_jax.report.diff_entry import Diff, Part


class _Count(NamedTuple):
  """What the rule finds in one part."""

  changed: int
  risen: int
  fallen: int
  latents: int


def section(diff: Diff) -> page.Section:
  blocks: list[page.Block] = []
  if diff.summary is None:
    blocks.append(_unfinished(diff))
  else:
    tested = [p for p in diff.claims if p.changed is not None]
    counts = {p.name: _count(diff, p) for p in (*tested, *_controls(diff))}
    blocks.append(
      {
        "kind": "verdict",
        "lines": [_line(diff, p, counts[p.name]) for p in tested]
        or [_untested(diff)],
        "controls": _control_words(diff, counts, tested),
      }
    )
    if tested:
      blocks.append(_ledger(diff, tested, counts))
    blocks.append(page.text(_rule(diff)))
    blocks += [page.missing(words) for words in diff.summary["warnings"]]
    if diff.manifest is None:
      blocks.append(_unfinished(diff))
  return page.Section(
    id=f"{diff.prefix}verdict", title="Verdict", blocks=blocks
  )


def story(diff: Diff) -> str:
  """The verdict on the first arm, without its figures."""
  if diff.summary is None:
    return "not finished yet."
  tested = [part for part in diff.claims if part.changed is not None]
  if not tested:
    return _untested(diff)["text"]
  first = _line(diff, tested[0], _count(diff, tested[0]))
  counts = {part.name: _count(diff, part) for part in diff.nulls}
  return (
    f"in {first['arm']}, {first['text']}"
    f" {_control_words(diff, counts, tested[:1])}"
  )


def _controls(diff: Diff) -> list[Part]:
  return [*diff.nulls, *diff.plain_controls]


def _count(diff: Diff, part: Part) -> _Count:
  found = diff.columns(part, ["changed", "score"])
  changed_F, up_F = found["changed"], found["score"] > 0
  return _Count(
    changed=int(changed_F.sum()),
    risen=int(np.sum(changed_F & up_F)),
    fallen=int(np.sum(changed_F & ~up_F)),
    latents=len(changed_F),
  )


def _line(diff: Diff, part: Part, count: _Count) -> dict[str, str]:
  """One sentence per arm, in plain words, and what its behaviour did."""
  all_arms = part.arm == diff_entry.JOINT
  beyond = ""
  if part.control:
    beyond = " beyond " + (
      "their controls" if all_arms else f"its control {part.control}"
    )
  if count.changed == 0:
    words = f"no latent of {count.latents:,} changed{beyond}."
  else:
    words = f"{count.changed:,} of {count.latents:,} latents changed{beyond}:"
    words += f" {count.risen:,} rose, {count.fallen:,} fell."
    if not part.control and not all_arms:
      words += " It has no control: part of this is any fine-tuning's style."
  return {
    "arm": diff_words.arm(part.arm),
    "text": words,
    "behaviour": _behaviour(diff, part.arm),
  }


def _behaviour(diff: Diff, arm: str) -> str:
  """How the margin between the two responses moved, where it was measured."""
  for part in diff.parts:
    margin = part.summary.get("margin")
    if part.arm == arm and margin and "shift" in margin:
      behaviour, contrast = part.summary["behaviour"], part.summary["contrast"]
      low, high = margin["shift_low"], margin["shift_high"]
      pair = f"“{behaviour}” responses to “{contrast}” ones"
      if low <= 0 <= high:
        words = f"How far it prefers {pair} has not measurably moved"
      else:
        how = "more" if margin["shift"] > 0 else "less"
        words = f"It has come to prefer {pair} {how} than the base"
      return (
        f"{words}: margin"
        f" {diff_words.signed(margin['base'])} →"
        f" {diff_words.signed(margin['mean'])} nats per token, shift"
        f" {diff_words.signed(margin['shift'])}"
        f" ({diff_words.signed(low)} to {diff_words.signed(high)})."
      )
  return ""


def _untested(diff: Diff) -> dict[str, str]:
  names = ", ".join(sorted({p.method for p in diff.parts})) or "none"
  return {
    "arm": "",
    "behaviour": "",
    "text": f"No method that tests latents was run (methods: {names}); add"
    " “frozen” to the methods of the config.",
  }


def _control_words(
  diff: Diff, counts: dict[str, _Count], tested: Sequence[Part]
) -> str:
  """What the same rule finds where there is nothing to find."""
  words = []
  for part in diff.nulls:
    words.append(f"{counts[part.name].changed:,} in {diff_words.arm(part.arm)}")
  shuffled = [
    found
    for part in tested
    if (found := diff_controls.shuffled(diff, part)) is not None
  ]
  if shuffled:
    means = sorted({say.number(f.mean, 2) for f in shuffled}, key=float)
    spread = means[0] if len(means) == 1 else f"{means[0]} to {means[-1]}"
    words.append(f"{spread} on average where the labels are shuffled")
  if not words:
    return (
      "No control tells how many latents the same rule finds in nothing: run"
      " with null_arm=True, or give an arm of role null."
    )
  return f"The same rule finds {' and '.join(words)}."


def _ledger(
  diff: Diff, tested: Sequence[Part], counts: dict[str, _Count]
) -> page.Block:
  """The counts as a table: claims above, controls below, bars on one scale."""
  most = max((count.changed for count in counts.values()), default=0)
  most = max(most, 1)
  controls = [_ledger_row(diff, p, counts[p.name], most) for p in diff.nulls]
  for part in tested:
    found = diff_controls.shuffled(diff, part)
    if found is not None:
      controls.append(_shuffled_row(diff, part, found, most))
  controls += [
    _ledger_row(diff, p, counts[p.name], most)
    | {"what": f"{diff_words.compared(diff, p)}: what other fine-tuning does"}
    for p in diff.plain_controls
  ]
  return {
    "kind": "ledger",
    "groups": [
      {
        "title": "Found",
        "rows": [_ledger_row(diff, p, counts[p.name], most) for p in tested],
      },
      {"title": "What the same rule finds in the controls", "rows": controls},
    ],
  }


def _ledger_row(
  diff: Diff, part: Part, count: _Count, most: int
) -> dict[str, Any]:
  return {
    "name": diff_words.arm(part.arm),
    "what": diff_words.compared(diff, part),
    "changed": f"{count.changed:,}",
    "risen": f"{count.risen:,}",
    "fallen": f"{count.fallen:,}",
    "share": say.percent(count.changed / max(count.latents, 1)),
    "up": round(100 * count.risen / most, 2),
    "down": round(100 * count.fallen / most, 2),
  }


def _shuffled_row(
  diff: Diff, part: Part, found: diff_controls.Shuffled, most: int
) -> dict[str, Any]:
  note = f"labels shuffled {found.times:,} times, mean"
  if found.rate is not None:
    note += f"; false-discovery rate {say.percent(found.rate)}"
  return {
    "name": f"{diff_words.arm(part.arm)}, shuffled",
    "what": note,
    "changed": say.number(found.mean, 2),
    "risen": "",
    "fallen": "",
    "share": "",
    "up": round(100 * min(found.mean / most, 1), 2),
    "down": 0,
  }


def _rule(diff: Diff) -> str:
  """When a latent counts as changed."""
  assert diff.summary is not None
  chosen, kind = diff.summary["statistics"], diff.summary["group_kind"]
  words = [
    f"q ≤ {chosen['q']:g} (t-test over {diff.summary['groups']:,} {kind},"
    " Benjamini–Hochberg over all latents)",
    f"the {100 * chosen['confidence']:g} % bootstrap interval over {kind}"
    " excludes 0",
  ]
  if diff_controls.noise_is_known(diff):
    words.append("the difference is larger than running the same model twice")
  return f"A latent has changed when {', and '.join(words)}."


def _unfinished(diff: Diff) -> page.Block:
  done = sorted(p.stem for p in (diff.path / "parts").glob("*.parquet"))
  far = f" Finished so far: {', '.join(done)}." if done else ""
  return page.missing(
    f"{diff.name} is not finished: it has no manifest.json yet.{far} The same"
    " command again goes on where it stopped.",
    f"sae-jax diff --config=FILE.py --out={diff.path}",
  )
