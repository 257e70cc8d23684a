# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Joins the parts of a diff into the files that people and the report read."""

import pathlib
from typing import Any

import numpy as np

from sae_jax import artifacts
from sae_jax.diff import agreement, cards, controls, table
from sae_jax.diff import problem as problem_lib

_SHOWN = 20  # latents per direction in summary.json


def write(
  problem: problem_lib.Problem,
  output: artifacts.Output,
  directory: pathlib.Path,
  names: list[tuple[str, str]],
) -> dict[str, Any]:
  """Writes all but the manifest; returns what the job prints."""
  table.join(directory, names, output.path / "latents.parquet")
  parts = [table.read_part(directory, *name) for name in names]
  _write_directions(output.path / "directions.npz", parts)
  summary = summarise(problem, parts)
  output.write_json("summary.json", summary)
  output.write_json("cards.json", cards.collect(problem, parts))
  return {
    "diff": str(output.path),
    "changed": {
      f"{part['method']}/{part['arm']}": part["changed"]
      for part in summary["parts"]
      if part["changed"] is not None
    },
    "risen": {
      f"{part['method']}/{part['arm']}": [
        row["latent"] for row in part["risen"][:5]
      ]
      for part in summary["parts"]
      if part["dictionary"] == "sae"
    },
  }


def summarise(
  problem: problem_lib.Problem, parts: list[table.Part]
) -> dict[str, Any]:
  """The diff as JSON values: what was asked, found and controlled."""
  config, evidence = problem.config, problem.evidence
  found = [_summary(part) for part in parts]
  control = controls.summary(problem, parts)
  warnings = [
    f"{part['method']}/{part['arm']}: {warning}"
    for part in found
    for warning in part["summary"].get("warnings", [])
  ]
  return {
    "base": config.base or config.base_store,
    "hook": evidence.hook,
    "sae": {
      "path": config.sae,
      "latents": problem.dictionary.latents,
      "k": problem.dictionary.k,
    },
    "arms": [
      {
        "name": arm.name,
        "role": arm.role,
        "control": c.name if (c := config.control_of(arm)) else "",
        "model": arm.model or arm.store,
      }
      for arm in config.arms
    ],
    "scope": evidence.scope,
    "activation": config.activation,
    "rows": evidence.rows,
    "groups": evidence.groups,
    "group_kind": evidence.kind,
    "prompts": len(problem.prompts.prompts) if problem.prompts else None,
    "statistics": {
      "resamples": config.statistics.resamples,
      "confidence": config.statistics.confidence,
      "q": config.statistics.q,
      "shuffles": config.statistics.shuffles,
      "top": config.statistics.top,
      "seed": config.statistics.seed,
    },
    "parts": found,
    "agreement": agreement.matrix(parts, config.statistics.top),
    "controls": control,
    "warnings": [*warnings, *control.get("warnings", [])],
  }


def _summary(part: table.Part) -> dict[str, Any]:
  columns = part.columns
  score_F = np.nan_to_num(np.asarray(columns["score"], np.float64))
  order_F = np.argsort(-score_F, kind="stable")
  risen = [i for i in order_F[:_SHOWN] if score_F[i] > 0]
  fallen = [i for i in order_F[::-1][:_SHOWN] if score_F[i] < 0]
  changed = columns.get("changed")
  return {
    "method": part.method,
    "arm": part.arm,
    "dictionary": part.dictionary,
    "control": part.control,
    "latents": part.latents,
    "changed": None if changed is None else int(np.sum(changed)),
    "risen": [_row(part, int(i)) for i in risen],
    "fallen": [_row(part, int(i)) for i in fallen],
    "summary": part.summary,
  }


def _row(part: table.Part, latent: int) -> dict[str, Any]:
  row: dict[str, Any] = {"latent": latent}
  for name in ("score", "ci_low", "ci_high", "q", "p_max", "changed", "tags"):
    if name in part.columns:
      value = part.columns[name][latent : latent + 1].tolist()[0]
      finite = not isinstance(value, float) or np.isfinite(value)
      row[name] = value if finite else None
  return row


def _write_directions(path: pathlib.Path, parts: list[table.Part]) -> None:
  arrays = {
    f"{part.name}/{name}": vector_D
    for part in parts
    for name, vector_D in part.directions.items()
  }
  artifacts.write_npz_atomic(path, arrays)
