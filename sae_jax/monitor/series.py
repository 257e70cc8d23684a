# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs as they lie on disk: which model at which step."""

import dataclasses
import pathlib

from sae_jax import errors
from sae_jax.lm import load as load_lib
from sae_jax.monitor import config as config_lib


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """One model of a run."""

  step: int
  source: str
  weights_hash: str


def checkpoints(
  run: config_lib.RunConfig, base: Checkpoint
) -> tuple[Checkpoint, ...]:
  """The models of a run in order; the base is step 0 where there is none.

  Raises:
    errors.InputError: no such directory or model, or nothing in it.
  """
  if run.series:
    found = _series(run)
  else:
    steps = run.steps or range(1, len(run.models) + 1)
    found = list(zip(steps, run.models, strict=True))
  known = [
    Checkpoint(step, source, load_lib.weights_hash(source))
    for step, source in found
  ]
  if known[0].step > 0:
    known.insert(0, base)
  return tuple(known)


def base(group: config_lib.GroupConfig) -> Checkpoint:
  return Checkpoint(0, group.base, load_lib.weights_hash(group.base))


def _series(run: config_lib.RunConfig) -> list[tuple[int, str]]:
  directory = pathlib.Path(run.series).expanduser()
  if not directory.is_dir():
    raise errors.InputError(
      f"run {run.name!r}: series={run.series}: no such directory"
    )
  found: dict[int, str] = {}
  # A step that is still being written has another name until it is whole.
  for path in sorted(p for p in directory.iterdir() if p.name.isdecimal()):
    if int(path.name) in found:
      raise errors.InputError(
        f"run {run.name!r}: {path} and {found[int(path.name)]} are the same"
        " step; remove one"
      )
    found[int(path.name)] = str(path)
  if not found:
    raise errors.InputError(
      f"run {run.name!r}: {directory} has no subdirectory that is called by a"
      " step, such as 000005/"
    )
  return sorted(found.items())
