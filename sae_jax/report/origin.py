# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How a finding was made: rules, inputs, versions, the config itself."""

from collections.abc import Sequence

from sae_jax.report import page, say
from sae_jax.report.findings import Finding


def section(finding: Finding, rows: Sequence[Sequence[str]]) -> page.Section:
  """The stated rules, then where everything came from.

  Args:
    rows: (name, value) of what the job itself was about.
  """
  blocks: list[page.Block] = []
  if rules := finding.found.get("rules"):
    blocks.append({"kind": "rules", "title": "Rules", "rows": list(rules)})
  table = [["directory", str(finding.path)], *map(list, rows)]
  config = finding.config or {}
  for key, value in sorted((config.get("inputs") or {}).items()):
    table.append([f"input {key}", str(value)])
  if "code_version" in config:
    table.append(["code version", str(config["code_version"])])
  if finding.manifest:
    table.append(["device", str(finding.manifest.get("device", ""))])
    table.append(["wall time", say.duration(finding.manifest.get("wall_s"))])
  blocks.append(page.table(table))
  for name, value in (
    ("config.json", finding.config),
    ("manifest.json", finding.manifest),
  ):
    if value is not None:
      blocks.append(page.fold_json(name, value))
  return page.Section(
    id=f"{finding.prefix}origin", title="How it was made", blocks=blocks
  )
