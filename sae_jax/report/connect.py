# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Ties what followed from a diff to that diff, both ways."""

import dataclasses
import pathlib
from collections.abc import Sequence

from sae_jax.report import diff_entry, diff_words, findings


def connect(
  found: Sequence[findings.Finding], diffs: Sequence[diff_entry.Diff]
) -> tuple[list[findings.Finding], list[diff_entry.Diff]]:
  """Findings with links to the cards of their diff, diffs with their screens.

  A finding names the directory of its diff. Where that has moved since, the
  only given diff with a directory of that name is meant.
  """
  owners = [_owner(finding, diffs) for finding in found]
  tied = [
    dataclasses.replace(finding, of=owner.name, links=_links(owner))
    if owner
    else finding
    for finding, owner in zip(found, owners, strict=True)
  ]
  return tied, [
    dataclasses.replace(
      diff,
      screens=tuple(
        finding
        for finding, owner in zip(tied, owners, strict=True)
        if owner is diff and finding.job == "steer" and finding.summary
      ),
    )
    for diff in diffs
  ]


def _owner(
  finding: findings.Finding, diffs: Sequence[diff_entry.Diff]
) -> diff_entry.Diff | None:
  if not finding.diff:
    return None
  named = pathlib.Path(finding.diff).expanduser().resolve()
  same = [diff for diff in diffs if diff.path == named]
  if not same and not named.exists():
    same = [diff for diff in diffs if diff.path.name == named.name]
  return same[0] if len(same) == 1 else None


def _links(diff: diff_entry.Diff) -> dict[int, tuple[str, str]]:
  return {
    latent: (f"#{diff.anchor(dictionary, latent)}", diff_words.reading(card))
    for (dictionary, latent), card in diff.card_of.items()
    if dictionary == "sae"
  }
