# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The engines by name, and the manual of their options."""

import dataclasses
import types
import typing

from sae_jax.submit import gke, local, request, skypilot, slurm, tpu_vm

# Each module has `Options` and `plan(request, options)`.
ENGINES: dict[str, types.ModuleType] = {
  "local": local,
  "slurm": slurm,
  "gke": gke,
  "tpu-vm": tpu_vm,
  "skypilot": skypilot,
}


def usage() -> str:
  """What `sae-jax submit --help` prints."""
  lines = [
    "usage: sae-jax submit --engine=ENGINE [--dry_run] [--name=NAME]",
    "           [--restarts=3] [OPTION ...] JOB --config=FILE.py --out=DIR",
    "           [--config.field=value ...]",
    "",
    "Options, with their defaults (see launch/README.md):",
  ]
  for name, module in ENGINES.items():
    words = [
      f"--{field.name}={_shown(field)}"
      for field in dataclasses.fields(module.Options)
      if field not in dataclasses.fields(request.Options)
    ]
    lines.append(f"  {name:9s} {' '.join(words)}")
  return "\n".join(lines)


def _shown(field: dataclasses.Field[typing.Any]) -> str:
  return "" if field.default is None else str(field.default)
