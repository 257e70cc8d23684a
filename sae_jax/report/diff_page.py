# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a diff: verdict, volcano, rankings, controls, cards, origin."""

import pathlib
from typing import Any

from sae_jax.report import (
  diff_baselines,
  diff_cards,
  diff_controls,
  diff_methods,
  diff_tables,
  diff_verdict,
  diff_volcano,
  diff_words,
  page,
  say,
)
from sae_jax.report.diff_entry import Diff


def title(diff: Diff) -> str:
  """Which arms were compared with what."""
  if diff.summary is None:
    return diff.name
  tuned = [a.name for a in diff.arms if a.role in ("tuned", "realigned")]
  names = tuned or [a.name for a in diff.arms]
  return f"What changed in {_and(names)}"


def lead(diff: Diff) -> str:
  """What was compared, on what, in one line."""
  found = diff.summary
  if found is None:
    return str(diff.path)
  sae = found["sae"]
  words = f"Compared with {_model(found['base'])} at {found['hook']},"
  words += f" by {sae['latents']:,} latents"
  if sae.get("k"):
    words += f" (top {sae['k']})"
  words += f", on {found['rows']:,} tokens of {found['groups']:,}"
  words += f" {found['group_kind']}"
  if scope := diff_words.SCOPES.get(found["scope"]):
    words += f": {scope}"
  return words


def story(diff: Diff) -> str:
  """What was found, in one sentence, for a page about several jobs."""
  return diff_verdict.story(diff)


def sections(diff: Diff) -> list[page.Section]:
  """Everything about one diff."""
  shown = [diff_verdict.section(diff)]
  if diff.parts and (diff.path / "latents.parquet").is_file():
    shown += [
      _volcano(diff),
      _ranked(diff),
      _arms(diff),
      diff_controls.section(diff),
      diff_methods.section(diff),
      diff_baselines.section(diff),
      diff_cards.section(diff),
    ]
  return [*shown, _origin(diff)]


def _and(names: list[str]) -> str:
  if len(names) < 2:
    return "".join(names)
  return f"{', '.join(names[:-1])} and {names[-1]}"


def _model(name: str) -> str:
  """A hub id as it is; of a path its last part."""
  return pathlib.PurePath(name).name if name[:1] in "/~." else name


def _volcano(diff: Diff) -> page.Section:
  controls = [*diff.plain_controls, *diff.nulls]
  figures = diff_volcano.figures(diff, [*diff.claims, *controls])
  names = {part.name for part in controls}
  blocks: list[page.Block] = [
    page.text(
      "Every mark is a latent: how far it moved, and how sure that is. The"
      " dotted line is where the false discovery rate begins to pass. Ringed"
      " marks have a card: click one to read it."
    ),
    page.figures([f for p, f in figures if p.name not in names], wide=True),
  ]
  beside = [f for p, f in figures if p.name in names]
  if beside:
    blocks += [page.heading("The controls"), page.figures(beside, wide=True)]
  if not figures:
    blocks = [
      page.missing(
        "No method that gives p-values was run; add “frozen” to the methods of"
        " the config."
      )
    ]
  return page.Section(
    id=f"{diff.prefix}volcano", title="Volcano", blocks=blocks
  )


def _ranked(diff: Diff) -> page.Section:
  assert diff.summary is not None
  found = diff.summary
  blocks: list[page.Block] = [
    page.text(
      f"Intervals are over {found['group_kind']}, on one axis per arm; grey"
      " ones do not pass the rule. “Fires on” is the share of tokens on which a"
      " latent is active, “effect” the mean over the standard deviation"
      f" between {found['group_kind']}, “stable” the share of resamples in"
      f" which it stays among the first {found['statistics']['top']:,}. Where a"
      " control is subtracted, risen and fallen are relative to it."
    )
  ]
  if diff.screens:
    blocks.append(
      page.text(
        "“Causal”, “correlated” and “inert” are the verdicts of steering; the"
        " curves are on the latents' cards."
      )
    )
  for part in diff.claims:
    name = diff_words.arm(part.arm)
    blocks.append(
      page.heading(
        f"{name[0].upper()}{name[1:]}: {diff_words.compared(diff, part)}"
      )
    )
    blocks += diff_tables.ranked(diff, part)
  return page.Section(
    id=f"{diff.prefix}ranked", title="Risen and fallen", blocks=blocks
  )


def _arms(diff: Diff) -> page.Section:
  blocks = diff_tables.arms(diff)
  if blocks:
    blocks.insert(
      0,
      page.text(
        "Difference of every model from the base, nothing subtracted, for the"
        " latents that come first in any tuned arm. Shading is by row."
      ),
    )
  else:
    blocks = [
      page.missing(
        "There is one model only; add arms to the config to see them beside"
        " one another."
      )
    ]
  return page.Section(
    id=f"{diff.prefix}arms", title="Arms side by side", blocks=blocks
  )


def _origin(diff: Diff) -> page.Section:
  rows = [["directory", str(diff.path)]]
  found: dict[str, Any] = diff.summary or {}
  if found:
    rows += [
      ["base", found["base"]],
      ["hook", found["hook"]],
      ["dictionary", found["sae"]["path"]],
      ["activation", f"{found['activation']}-activation means"],
    ]
  rows += [[f"{arm.role} arm {arm.name}", arm.model] for arm in diff.arms]
  config = diff.config or {}
  for key, value in sorted(config.get("inputs", {}).items()):
    rows.append([f"input {key}", str(value)])
  if "code_version" in config:
    rows.append(["code version", str(config["code_version"])])
  if diff.manifest:
    rows.append(["device", str(diff.manifest["device"])])
    rows.append(["wall time", say.duration(diff.manifest["wall_s"])])
  blocks = [page.table(rows)]
  for name, value in (
    ("config.json", diff.config),
    ("manifest.json", diff.manifest),
  ):
    if value is not None:
      blocks.append(page.fold_json(name, value))
  return page.Section(
    id=f"{diff.prefix}origin", title="How it was made", blocks=blocks
  )
