# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a page about several jobs is called, and what it says first."""

from collections.abc import Sequence
from types import ModuleType

from sae_jax.report import (
  diff_page,
  monitor_page,
  page,
  realign_page,
  steer_page,
)
from sae_jax.report.diff_entry import Diff
from sae_jax.report.findings import Finding

_PAGES: dict[str, ModuleType] = {
  "steer": steer_page,
  "realign": realign_page,
  "monitor": monitor_page,
}
_AFTER = {
  "steer": "what it does",
  "realign": "whether it goes back",
  "monitor": "when it shows",
}


def of(finding: Finding) -> ModuleType:
  """The page of its job."""
  return _PAGES[finding.job]


def title(diffs: Sequence[Diff], found: Sequence[Finding]) -> str:
  """What changed, what it does, whether it goes back and when it shows."""
  jobs = [job for job in _AFTER if any(f.job == job for f in found)]
  heads = list(dict.fromkeys(diff_page.title(diff) for diff in diffs))
  if not heads:
    return "; ".join(dict.fromkeys(of(f).title(f) for f in found))
  clauses = ["; ".join(heads), *(_AFTER[job] for job in jobs)]
  if len(clauses) == 1:
    return clauses[0]
  return f"{', '.join(clauses[:-1])}, and {clauses[-1]}"


def lead(diffs: Sequence[Diff], found: Sequence[Finding]) -> str:
  """One sentence for each job: on what it was done."""
  words = [diff_page.lead(diff) for diff in diffs]
  words += [of(finding).lead(finding) for finding in found]
  return ". ".join(words)


def names(diffs: Sequence[Diff], found: Sequence[Finding]) -> list[str]:
  """Titles of all; those of one title are told apart by their directories."""
  titles = [(diff_page.title(diff), diff.name) for diff in diffs]
  titles += [(of(finding).title(finding), finding.name) for finding in found]
  said = [title for title, _ in titles]
  return [
    title if said.count(title) == 1 else f"{name}: {title}"
    for title, name in titles
  ]


def section(diffs: Sequence[Diff], found: Sequence[Finding]) -> page.Section:
  """What every job found, in one sentence each, with a link to it."""
  known = [(diff.prefix, diff_page.story(diff)) for diff in diffs]
  known += [(finding.prefix, of(finding).story(finding)) for finding in found]
  lines = [
    {"name": name, "href": f"#{prefix}verdict", "text": text}
    for name, (prefix, text) in zip(names(diffs, found), known, strict=True)
  ]
  return page.Section(
    id="in-short",
    title="In short",
    blocks=[{"kind": "story", "lines": lines}],
  )
