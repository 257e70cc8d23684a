# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""First on a page of a finding: what was found, and what is not there yet."""

from collections.abc import Callable, Sequence

from sae_jax.report import page
from sae_jax.report.findings import Finding


def make(
  finding: Finding,
  blocks: Callable[[Finding], Sequence[page.Block]],
  title: str = "Verdict",
) -> page.Section:
  """`blocks` of a finding that has a summary, its warnings, and its state."""
  shown: list[page.Block] = []
  if finding.summary is not None:
    warnings = finding.found.get("warnings") or ()
    shown += [*blocks(finding), *map(page.missing, warnings)]
  if finding.summary is None or finding.manifest is None:
    shown.append(page.unfinished(finding.job, finding.name, finding.path))
  return page.Section(id=f"{finding.prefix}verdict", title=title, blocks=shown)
