# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How far the methods agree, what each ranks first; crosscoders' findings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax.report import diff_tables, diff_words, page, say
from sae_jax.report.diff_entry import Diff, Part

_FIRST = 5  # latents of each part in the overview


def section(diff: Diff) -> page.Section:
  """Agreement matrices, the first of every part, then each part's ranking."""
  blocks = [*_agreement(diff), *_overview(diff)]
  for part in diff.parts:
    if part.method == "crosscoder":
      blocks += [page.heading(diff_words.part(part)), *_crosscoder(part)]
  claims = {part.name for part in diff.claims}
  rest = [part for part in diff.parts if part.name not in claims]
  if rest:
    blocks.append(page.heading("Every ranking"))
  for part in rest:
    blocks.append(_fold(diff, part))
  return page.Section(
    id=f"{diff.prefix}methods", title="Methods", blocks=blocks
  )


def _agreement(diff: Diff) -> list[page.Block]:
  found = (diff.summary or {}).get("agreement")
  if not found or len(found["labels"]) < 2:
    return [
      page.missing(
        "Only one method ranked the latents: nothing can agree with it. Add"
        " others to the methods of the config."
      )
    ]
  top = found["top"]
  return [
    page.text(
      "Spearman correlation of the scores, over latents to which both give"
      f" one, and the share of the {top:,} latents with the largest |score|"
      " that two have in common."
    ),
    {
      "kind": "matrices",
      # Side by side where both fit.
      "narrow": len(found["labels"]) <= 8,
      "matrices": [
        _matrix("Spearman correlation", found["labels"], found["spearman"]),
        _matrix(
          f"Shared of the top {top:,}", found["labels"], found["overlap"]
        ),
      ],
    },
  ]


def _matrix(
  title: str,
  labels: Sequence[str],
  values: Sequence[Sequence[float | None]],
) -> dict[str, Any]:
  return {
    "title": title,
    "labels": list(labels),
    "rows": [
      {
        "label": label,
        "cells": [_cell(value, own=i == j) for j, value in enumerate(row)],
      }
      for i, (label, row) in enumerate(zip(labels, values, strict=True))
    ],
  }


def _cell(value: float | None, *, own: bool) -> dict[str, Any]:
  if own or value is None:
    return {"text": "·" if own else "–", "sign": "up", "shade": "0"}
  text = f"{value:.2f}".replace("0.", ".", 1).replace("-", "−")
  return {
    "text": "0" if not text.strip("−.0") else text,
    "sign": "up" if value >= 0 else "down",
    "shade": f"{min(1.0, abs(value)):.2f}",
  }


def _overview(diff: Diff) -> list[page.Block]:
  rows = []
  for part in diff.parts:
    found = diff.columns(part, ["score", "rank_up", "rank_down"])
    row = {
      "name": diff_words.method(part.method).title,
      "arm": diff_words.arm(part.arm),
      "changed": part.changed,
      "up": _first(diff, part, found, "rank_up", 1),
      "down": [],
    }
    if diff_words.method(part.method).signed:
      row["down"] = _first(diff, part, found, "rank_down", -1)
    rows.append(row)
  return [
    page.heading(f"The first {_FIRST} by every method"),
    {"kind": "overview", "rows": rows},
  ]


def _first(
  diff: Diff, part: Part, found: dict[str, np.ndarray], key: str, sign: int
) -> list[dict[str, Any]]:
  order = np.argsort(found[key], kind="stable")[:_FIRST]
  order = order[sign * found["score"][order] > 0]
  return [diff_tables.reference(diff, part.dictionary, int(n)) for n in order]


def _crosscoder(part: Part) -> list[page.Block]:
  """Whose latents there are, and what they recover when patched in."""
  found = part.summary
  by_norm, patching = found["by_norm"], found["patching"]
  blocks: list[page.Block] = [
    page.text(
      f"By decoder norms alone {by_norm['tuned_only']:,} latents are the"
      f" arm's, {by_norm['base_only']:,} the base's and"
      f" {by_norm['shared']:,} shared; with Latent Scaling"
      f" {found['tuned_only']:,} and {found['base_only']:,} are left. Δnorm is"
      " 1 for the arm alone and 0 for the base; ν near 0 is exclusive, near 1"
      " in both."
    )
  ]
  if not patching["available"]:
    return [*blocks, page.text(f"Not patched in: {patching['why']}.")]
  rows = [
    [
      f"{name.replace('_', ' ')}: {row['latents']:,} latents",
      _recovered(row),
    ]
    for name, row in patching["sets"].items()
  ]
  return [
    *blocks,
    page.text(
      "Share of the KL divergence that is recovered when the differences of"
      " some latents' decoder blocks are added to the base's activations inside"
      f" the arm's model (it is {say.number(patching['kl'])} nats with none)."
    ),
    page.table(rows),
  ]


def _recovered(row: dict[str, Any]) -> str:
  if row["recovered"] is None:
    return "the models predict the same"
  text = say.percent(row["recovered"])
  if row["low"] is None:
    return text
  return f"{text} ({say.percent(row['low'])} to {say.percent(row['high'])})"


def _fold(diff: Diff, part: Part) -> page.Block:
  about = diff_words.method(part.method)
  changed = "" if part.changed is None else f"; {part.changed:,} changed"
  return {
    "kind": "fold",
    "title": f"{about.title}: {diff_words.compared(diff, part)}{changed}",
    "blocks": [
      page.text(about.about),
      *diff_tables.ranked(diff, part),
      page.fold_json("its summary", part.summary),
    ],
  }
