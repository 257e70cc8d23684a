# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads what a page is made from: training runs and their evaluations.

Only reads. Whatever a run or an evaluation has not written yet is None.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from sae_jax import artifacts, errors, metrics
from sae_jax.report import (
  connect,
  diff_entry,
  evaluations,
  findings,
  sweep_entry,
)
from sae_jax.report.evaluations import Evaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """One dictionary on the page: its training run, its evaluation, or both."""

  name: str
  path: pathlib.Path  # of the run; of the evaluation when there is no run
  config: dict[str, Any] | None  # config.json of the run
  manifest: dict[str, Any] | None  # written when the run is done
  metrics: list[dict[str, Any]]  # lines of metrics.jsonl
  sae: dict[str, Any] | None  # sae/cfg.json
  evaluation: Evaluation | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
  """Everything that a page is made from."""

  diffs: list[diff_entry.Diff]
  findings: list[findings.Finding]  # steer, then realign, then monitor jobs
  sweeps: list[sweep_entry.Sweep]
  dictionaries: list[Entry]


def read_all(paths: Sequence[str | os.PathLike[str]]) -> Shown:
  """Reads diffs, what followed from them, runs and evaluations.

  Raises:
    errors.InputError: there are no paths, or one is nothing of these.
  """
  if not paths:
    raise errors.InputError(
      "nothing to report on: give directories of diff, steer, realign, monitor,"
      " train and evaluate jobs"
    )
  directories = [pathlib.Path(path).expanduser().resolve() for path in paths]
  directories = list(dict.fromkeys(directories))
  jobs = {path: findings.job_of(path) for path in directories}
  diffs = [path for path in directories if diff_entry.is_diff(path)]
  found = sorted(
    (path for path in directories if jobs[path]),
    key=lambda path: findings.JOBS.index(jobs[path]),
  )
  sweeps = [path for path in directories if sweep_entry.is_sweep(path)]
  names = _names([*diffs, *found, *sweeps]) if diffs or found or sweeps else {}
  rest = [path for path in directories if path not in names]
  read_diffs = [
    diff_entry.read(path, names[path], f"d{i}-" if i else "d-")
    for i, path in enumerate(diffs)
  ]
  read_findings = [
    findings.read(path, names[path], f"{jobs[path]}{i}-")
    for i, path in enumerate(found)
  ]
  tied, read_diffs = connect.connect(read_findings, read_diffs)
  of_members = _of_members(sweeps, rest)
  taken = [e.path for of_sweep in of_members for _, e in of_sweep]
  rest = [path for path in rest if path not in taken]
  return Shown(
    diffs=read_diffs,
    findings=tied,
    sweeps=[
      sweep_entry.read(path, names[path], f"sweep{i}-", own)
      for i, (path, own) in enumerate(zip(sweeps, of_members, strict=True))
    ],
    dictionaries=read(rest) if rest else [],
  )


def _of_members(
  sweeps: Sequence[pathlib.Path], given: Sequence[pathlib.Path]
) -> list[list[tuple[int, Evaluation]]]:
  """For each sweep the evaluations of its members, those given first."""
  if not sweeps:
    return []
  of_members = {path: list[tuple[int, Evaluation]]() for path in sweeps}
  places = [path for path in given if evaluations.is_evaluation(path)]
  places += [p for run in sweeps for p in sweep_entry.found_inside(run)]
  for place in dict.fromkeys(places):
    evaluation = evaluations.read(place)
    if owner := sweep_entry.owner(evaluation, sweeps):
      of_members[owner[0]].append((owner[1], evaluation))
  return list(of_members.values())


def read(directories: Sequence[pathlib.Path]) -> list[Entry]:
  """Reads runs and evaluations and puts those together that belong together.

  An evaluation belongs to the run it lies in, to the run its config names, or
  to the only run there is.

  Raises:
    errors.InputError: a path is neither.
  """
  runs: list[pathlib.Path] = []
  found: list[Evaluation] = []
  for directory in directories:
    if evaluations.is_evaluation(directory):
      found.append(evaluations.read(directory))
    elif (directory / "metrics.jsonl").is_file():
      runs.append(directory)
      found += [
        evaluations.read(child.parent)
        for child in sorted(directory.glob("*/metrics.json"))
        if child.parent not in directories
      ]
    else:
      raise errors.InputError(
        f"{directory} is neither a training run (metrics.jsonl) nor an"
        " evaluation (metrics.json) nor a diff, steer, realign or monitor job"
        " (config.json); give the --out of such a job that has started writing"
      )
  owners = [_owner(evaluation, runs) for evaluation in found]
  names = _names([*runs, *(e.path for e in found)])
  entries = []
  for run in runs:
    own = [e for e, r in zip(found, owners, strict=True) if r == run]
    entries.append(_entry(names[run], run, own[-1] if own else None))
    entries += [_entry(names[e.path], e.path, e) for e in own[:-1]]
  for evaluation, owner in zip(found, owners, strict=True):
    if owner is None:
      entries.append(
        _entry(names[evaluation.path], evaluation.path, evaluation)
      )
  return entries


def evaluated(entries: Sequence[Entry]) -> list[tuple[Entry, Evaluation]]:
  """The entries that have an evaluation, with it."""
  return [(e, e.evaluation) for e in entries if e.evaluation is not None]


def _entry(
  name: str, path: pathlib.Path, evaluation: Evaluation | None
) -> Entry:
  return Entry(
    name=name,
    path=path,
    config=artifacts.read_json(path / "config.json"),
    manifest=artifacts.read_json(path / "manifest.json"),
    metrics=metrics.read(path / "metrics.jsonl"),
    sae=artifacts.read_json(path / "sae" / "cfg.json"),
    evaluation=evaluation,
  )


def _owner(
  evaluation: Evaluation, runs: Sequence[pathlib.Path]
) -> pathlib.Path | None:
  named = evaluations.named_paths(evaluation)
  for run in runs:
    inside = run in evaluation.path.parents
    if inside or any(run == path or run in path.parents for path in named):
      return run
  # Of a run that is there, but not given: it is no other run's.
  if any(_is_of_a_run(path) for path in named):
    return None
  return runs[0] if len(runs) == 1 else None


def _is_of_a_run(path: pathlib.Path) -> bool:
  """Whether it is a training run, its dictionary, or one of its members."""
  return any(
    (place / "metrics.jsonl").is_file() for place in (path, *path.parents[:2])
  )


def _names(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """The shortest ends of the paths that tell them apart."""
  for parts in range(1, max(len(path.parts) for path in paths) + 1):
    names = {path: "/".join(path.parts[-parts:]) for path in paths}
    if len(set(names.values())) == len(names):
      break
  return names
