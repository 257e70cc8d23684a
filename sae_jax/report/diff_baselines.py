# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The baselines without a dictionary that every claim stands beside."""

from sae_jax.report import page
from sae_jax.report.diff_entry import Diff


def section(diff: Diff) -> page.Section:
  found = [p for p in diff.parts if p.method in ("linear", "lens")]
  return page.Section(
    id=f"{diff.prefix}baselines",
    title="Linear baselines",
    blocks=[page.fold_json(part.name, part.summary) for part in found],
  )
