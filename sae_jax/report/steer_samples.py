# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the models say: rates by the judge, answers side by side."""

from collections.abc import Mapping
from typing import Any

from sae_jax.report import (
  diff_words,
  grid,
  latents,
  page,
  say,
  scores,
  steer_words,
)
from sae_jax.report.findings import Finding
from sae_jax.report.steer_words import Row

_SHOWN = 3  # examples per intervention and model
_KINDS = ("bundle", "direction", "latent", "random")
_RATES = ("behaviour", "contrast", "incoherent")


def section(finding: Finding) -> page.Section:
  """Rates of every intervention that was sampled, then the answers."""
  found = finding.found.get("generation")
  if not found:
    blocks: list[page.Block] = [
      page.missing(
        "No answers were sampled: everything above is about the likelihood of"
        " given answers. Set config.generation with a judge, and run into a"
        " new --out, to see what the models say by themselves."
      )
    ]
  else:
    blocks = [
      page.text(_about(found)),
      grid.block(_heads(), _rows(finding, found), first=40),
      *_answers(finding, found),
    ]
  return page.Section(
    id=f"{finding.prefix}samples", title="Sampled answers", blocks=blocks
  )


def _about(found: Mapping[str, Any]) -> str:
  prompts = diff_words.plural(found["prompts"], "prompt")
  samples = diff_words.plural(found["samples"], "answer")
  words = f"{prompts}, {samples} each, of at most"
  words += f" {found['max_new_tokens']:,} tokens at temperature"
  words += f" {found['temperature']:g}; with and without an intervention from"
  words += " the same random numbers. Judged by"
  words += f" {steer_words.judge(found.get('judge'))}. Incoherence counts"
  words += " against what the unsteered model has; “no” means that even the"
  words += " least strength went beyond the budget. The answers shown are the"
  words += " first to evenly spaced prompts, none is picked."
  return words


def _heads() -> list[grid.Head]:
  heads = [grid.Head("", wide=True), grid.Head("strength", number=True)]
  for name in _RATES:
    heads += [
      grid.Head("rate", number=True, group=name),
      grid.Head("interval", bar=True, group=name),
    ]
  return [*heads, grid.Head("within budget")]


def _rows(finding: Finding, found: Mapping[str, Any]) -> list[grid.Row]:
  rows = []
  for model in ("base", "tuned"):
    unsteered = (found.get("unsteered") or {}).get(model)
    if unsteered:
      name = _model(finding, model)
      rows.append(_row(f"{name}, unsteered", unsteered, quiet=True))
    rows += [
      _row(title(finding, row), row, quiet=row["kind"] == "random")
      for row in _ordered(found)
      if row["model"] == model
    ]
  return rows


def _row(name: str, row: Mapping[str, Any], *, quiet: bool = False) -> grid.Row:
  strength = row.get("strength")
  cells = [
    grid.Cell(name, strong=quiet),
    grid.Cell(say.number(strength, 2), sort=strength),
  ]
  for rate in _RATES:
    score = row.get(rate)
    cells += [
      grid.Cell(
        scores.percent(scores.mean(score)),
        sort=scores.mean(score),
        strong=True,
      ),
      grid.Cell(
        "",
        bar=scores.interval(score, 0, 1),
        tone={"behaviour": "up", "contrast": "down"}.get(rate, ""),
        tip=scores.share(score),
      ),
    ]
  within = row.get("within_budget")
  cells.append(grid.Cell("" if within is None else "yes" if within else "no"))
  return grid.Row(cells, quiet=quiet)


def _model(finding: Finding, model: str) -> str:
  name = steer_words.base if model == "base" else steer_words.tuned
  return name(finding)


def title(finding: Finding, row: Mapping[str, Any]) -> str:
  """An intervention on a model: base + latent 11."""
  sign = "+" if row["model"] == "base" else "−"
  name = steer_words.title({"latents": (), **row})
  return f"{_model(finding, row['model'])} {sign} {name}"


def rows_of(finding: Finding, row: Row) -> list[Mapping[str, Any]]:
  """The sampled rows of an intervention, base first."""
  rows = (finding.found.get("generation") or {}).get("rows") or ()
  found = [other for other in rows if other["name"] == row["name"]]
  return sorted(found, key=lambda other: other["model"] != "base")


def _ordered(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """Bundles, directions, latents, then random ones."""
  return sorted(
    found["rows"],
    key=lambda row: (
      _KINDS.index(row["kind"]) if row["kind"] in _KINDS else len(_KINDS)
    ),
  )


def _answers(finding: Finding, found: Mapping[str, Any]) -> list[page.Block]:
  rows = [row for row in _ordered(found) if row.get("examples")]
  if not rows:
    return []
  blocks: list[page.Block] = [page.heading("Side by side with the unsteered")]
  for i, row in enumerate(rows):
    strength = row.get("strength")
    at = "" if strength is None else f" at strength {strength:g}"
    shown = {"kind": "samples", "examples": examples(row, _SHOWN)}
    name = f"{title(finding, row)}{at}"
    if i < 2:  # the rest is for those who want it
      blocks += [{"kind": "samples_head", "text": name}, shown]
    else:
      blocks.append(page.fold(name, [shown]))
  return blocks


def examples(row: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
  """Answers as the template shows them."""
  return [
    {
      "id": str(found.get("id", "")),
      "prompt": lines(found.get("prompt") or ""),
      "before": "unsteered",
      "after": "steered",
      "unsteered": lines(found.get("unsteered_text") or ""),
      "text": lines(found.get("text") or ""),
      "label": found.get("label") or "",
      "unsteered_label": found.get("unsteered_label") or "",
      "score": say.number(found["score"], 2)
      if isinstance(found.get("score"), (int, float))
      else "",
    }
    for found in (row.get("examples") or ())[:most]
  ]


def lines(text: str) -> list[tuple[str, bool]]:
  """Running text: line ends stay, what cannot be seen becomes a sign."""
  pieces: list[tuple[str, bool]] = []
  for i, line in enumerate(text.split("\n")):
    if i:
      pieces.append(("\n", False))
    if line.strip(" "):
      pieces += latents.visible(line)
  return pieces or [("∅", True)]
