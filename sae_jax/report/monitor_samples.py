# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning data by how far each sample pushes the suspect latents."""

from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax.report import (
  diff_words,
  monitor_words,
  page,
  scores,
  steer_samples,
)
from sae_jax.report.findings import Finding

_SHOWN = 5  # samples of each slice unfolded, where there are slices


def section(finding: Finding) -> page.Section:
  found = finding.found.get("screening")
  if not found:
    blocks: list[page.Block] = [
      page.missing(
        "No training data was screened: give config.screening a JSONL file of"
        " samples to rank them by how far they push the latents."
      )
    ]
  else:
    blocks = [page.text(_about(found))]
    for key, title, opened in (
      ("top", "Pushed most", True),
      ("bottom", "Pushed least", False),
      ("random", "At random, for comparison", False),
    ):
      blocks += _slice(found, key, title, opened=opened)
  return page.Section(
    id=f"{finding.prefix}samples", title="Training data", blocks=blocks
  )


def verdict(finding: Finding) -> str:
  """How well the ranking finds bad samples, where they are known."""
  found = finding.found.get("screening") or {}
  if not found:
    return ""
  words = f"{diff_words.plural(found.get('samples') or 0, 'sample')} ranked"
  if found.get("auroc"):
    words += "; the bad ones stand above the rest with AUROC"
    words += f" {monitor_words.auroc(found['auroc'])}"
    if found.get("found") is not None:
      words += f", and {scores.percent(found['found'])} of as many first ones"
      words += " are bad"
  return f"{words}."


def _about(found: Mapping[str, Any]) -> str:
  signal = monitor_words.title(found.get("signal") or "latents")
  words = f"{diff_words.plural(found.get('samples') or 0, 'sample')} of"
  words += f" {found.get('path')}, by how much higher the signal “{signal}” is"
  words += " in the base on the sample's completion"
  reference = found.get("reference")
  words += (
    " than on the base's own answer"
    if reference == "base"
    else f" than on its “{reference}”"
    if reference
    else ""
  )
  words += ". No model was tuned on them."
  if mean := found.get("mean"):
    words += f" Mean of the whole set: {scores.with_bounds(mean)}."
  if found.get("bad") is not None:
    words += f" {found['bad']:,} are labelled bad; the label was not used to"
    words += " rank."
  return f"{words} All of them stand in samples.parquet."


def _slice(
  found: Mapping[str, Any], key: str, title: str, *, opened: bool
) -> list[page.Block]:
  rows: Sequence[Mapping[str, Any]] = found.get(key) or ()
  if not rows:
    return []
  own = found.get("reference") == "base"
  shown = {
    "kind": "samples",
    "examples": [_example(row, own=own) for row in rows],
  }
  if opened:
    first = shown | {"examples": shown["examples"][:_SHOWN]}
    rest = shown | {"examples": shown["examples"][_SHOWN:]}
    blocks: list[page.Block] = [page.heading(title), first]
    if rest["examples"]:
      more = f"{len(rest['examples'])} more"
      blocks.append(page.fold(more, [rest]))
    return blocks
  return [page.fold(f"{title} ({len(rows)})", [shown])]


def _example(row: Mapping[str, Any], *, own: bool) -> dict[str, Any]:
  delta = row.get("delta", row.get("score"))
  bad = row.get("bad", row.get("label"))
  place = f"#{row['rank']:,}, " if row.get("rank") is not None else ""
  return {
    "id": str(row.get("id", "")),
    "prompt": steer_samples.lines(str(row.get("prompt") or "")),
    "before": "the base's own answer" if own else "reference",
    "after": f"{place}push {diff_words.signed(delta)}",
    "unsteered": steer_samples.lines(str(row.get("reference") or "")),
    "text": steer_samples.lines(str(row.get("completion") or "")),
    "label": "" if bad is None else "labelled bad" if bad else "labelled good",
    "unsteered_label": "",
    "score": "",
  }
