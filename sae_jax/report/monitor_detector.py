# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Is a model bad: last checkpoints alone, on held-out models."""

from collections.abc import Mapping
from typing import Any

from sae_jax.report import grid, monitor_tables, monitor_words, page, scores
from sae_jax.report.findings import Finding


def section(finding: Finding) -> page.Section:
  """Is this model misaligned: the last checkpoints alone."""
  found = finding.found.get("detector") or {}
  rows = found.get("rows") or ()
  if not rows:
    blocks: list[page.Block] = [
      page.missing(
        "No last checkpoints could be compared: that takes suspect and benign"
        " runs that the latents were not selected on."
      )
    ]
  else:
    words = f"Last checkpoints only: {found.get('models', 0):,} models"
    if "positive" in found and "negative" in found:
      words += f", {found['positive']:,} of which show the behaviour and"
      words += f" {found['negative']:,} are benign"
    words += ". The latents were selected on other runs; “in sample” adds"
    words += " those back, and is what is often quoted."
    shuffled = found.get("shuffled")
    if shuffled:
      words += f" With labels shuffled {shuffled['shuffles']:,} times, the best"
      words += (
        f" latent reaches {shuffled['in_sample_auroc']:.2f} in sample and"
      )
      words += f" {shuffled['auroc']:.2f} held out: what choosing alone makes."
    blocks = [
      page.text(words),
      grid.block(_DETECTOR, [_model_row(finding, row) for row in rows]),
    ]
  return page.Section(
    id=f"{finding.prefix}detector", title="Is a model bad", blocks=blocks
  )


_DETECTOR = [
  grid.Head("", wide=True),
  grid.Head("AUROC", number=True, group="held out"),
  grid.Head("0 to 1", bar=True, group="held out"),
  grid.Head("caught", number=True, group="at the stated rate of false alarms"),
  grid.Head("accused", number=True, group="at the stated rate of false alarms"),
  grid.Head("in sample", number=True),
]


def _model_row(finding: Finding, row: Mapping[str, Any]) -> grid.Row:
  name = row["signal"]
  score = {
    "mean": row.get("auroc"),
    "ci_low": row.get("ci_low"),
    "ci_high": row.get("ci_high"),
  }
  first = monitor_tables.named(finding, name)
  if name == "best latent":
    first = grid.Cell(name, note="chosen anew for each pair, without the two")
  inside = scores.mean(row.get("in_sample_auroc"))
  return grid.Row(
    [
      first,
      grid.Cell(
        scores.fixed(scores.mean(score), 2),
        sort=scores.mean(score),
        strong=True,
      ),
      grid.Cell(
        "",
        bar=monitor_tables.half(score),
        tone="up" if name == "latents" else "",
        tip=monitor_words.auroc(score),
      ),
      _rate(row, "tpr"),
      _rate(row, "fpr"),
      grid.Cell(scores.fixed(inside, 2), sort=inside),
    ]
  )


def _rate(row: Mapping[str, Any], name: str) -> grid.Cell:
  value = scores.mean(row.get(name))
  words = scores.percent(value)
  if value is not None and row.get(f"{name}_of"):
    words += f" ({row[f'{name}_n']:,} of {row[f'{name}_of']:,})"
  return grid.Cell(words, sort=value)
