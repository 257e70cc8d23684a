# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of training runs: how good the dictionaries are, how they grew."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax.report import (
  curves,
  density,
  latents,
  page,
  run_frontier,
  say,
  summary,
)
from sae_jax.report.entries import Entry


def title(shown: Sequence[Entry]) -> str:
  several = len(shown) > 1
  return f"{len(shown)} dictionaries" if several else _title(shown[0])


def lead(shown: Sequence[Entry]) -> str:
  return "; ".join(map(_lead, shown))


def sections(shown: Sequence[Entry]) -> list[page.Section]:
  """Everything about the dictionaries."""
  return [
    summary.section(shown),
    *run_frontier.sections(shown),
    curves.section(shown),
    density.section(shown),
    latents.section(shown),
    provenance(shown),
  ]


def _title(entry: Entry) -> str:
  """The model and hook where they are known, else the directory's name."""
  origin = (entry.sae or {}).get("metadata", {})
  model, hook = origin.get("model_name"), origin.get("hook_name")
  if not (model and hook):
    return entry.name
  if model.startswith(("/", "~", ".")):  # a path; a hub id is a name
    model = pathlib.PurePath(model).name
  return f"{model}, {hook}"


def _lead(entry: Entry) -> str:
  """What it is, in one line: kind, width, sparsity, hook, place."""
  sae = entry.sae or {}
  found = entry.evaluation.metrics if entry.evaluation else {}
  words = _kind(sae)
  if width := sae.get("d_sae") or found.get("latents"):
    words += f", {width:,} latents"
  if sae.get("architecture") == "topk":
    words += f", top {sae['k']}"
  if hook := sae.get("metadata", {}).get("hook_name") or found.get("hook"):
    words += f", on {hook}"
  return f"{entry.name}: {words}"


# What the kinds are called, by SAELens's names of how they are trained.
_KINDS = {
  "batchtopk": "BatchTopK",
  "matryoshka_batchtopk": "Matryoshka",
  "matryoshka_topk": "Matryoshka TopK",
  "jumprelu": "JumpReLU",
  "standard": "L1",
  "gated": "Gated",
}


def _kind(sae: Mapping[str, Any]) -> str:
  """Sparse autoencoder, BatchTopK crosscoder of 2 sources, …"""
  origin = sae.get("metadata", {})
  architecture = str(sae.get("architecture", ""))
  trained_as = origin.get("training_architecture") or architecture
  noun = "sparse autoencoder"
  if "transcoder" in architecture:
    noun = "skip transcoder" if "skip" in architecture else "transcoder"
  elif sources := origin.get("sae_jax_sources"):
    noun = f"crosscoder of {sources} sources"
  adjective = _KINDS.get(str(trained_as), "")
  words = f"{adjective} {noun}".strip()
  return words[0].upper() + words[1:]


def provenance(shown: Sequence[Entry]) -> page.Section:
  """Where every dictionary came from, and its files in full."""
  blocks: list[page.Block] = []
  for entry in shown:
    if len(shown) > 1:
      blocks.append(page.heading(entry.name))
    blocks.append(page.table(_origin(entry)))
    evaluation = entry.evaluation
    for title, value in (
      ("config.json", entry.config),
      ("manifest.json", entry.manifest),
      ("sae/cfg.json", entry.sae),
      ("config.json of the evaluation", evaluation and evaluation.config),
    ):
      if value is not None:
        blocks.append(page.fold_json(title, value))
  return page.Section(id="provenance", title="Configuration", blocks=blocks)


def _origin(entry: Entry) -> list[list[str]]:
  sae = entry.sae or {}
  rows = [["directory", str(entry.path)]]
  if entry.evaluation and entry.evaluation.path != entry.path:
    rows.append(["evaluation", str(entry.evaluation.path)])
  for key, value in sorted((entry.config or {}).get("inputs", {}).items()):
    rows.append([f"input {key}", str(value)])
  for key, value in sorted(sae.get("metadata", {}).items()):
    if value is not None and not isinstance(value, (dict, list)):
      rows.append([key, str(value)])
  for key in ("architecture", "d_in", "d_sae", "k", "dtype"):
    if key in sae:
      rows.append([key, str(sae[key])])
  if entry.config:
    rows.append(["code version", str(entry.config["code_version"])])
  if entry.manifest:
    rows.append(["device", str(entry.manifest["device"])])
    rows.append(["wall time", say.duration(entry.manifest["wall_s"])])
  return rows
