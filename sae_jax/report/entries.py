# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads what a page is made from: training runs and their evaluations.

Only reads. Whatever a run or an evaluation has not written yet is None.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sae_jax import artifacts, errors, metrics
from sae_jax.report import connect, diff_entry, findings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """A directory of the evaluate job."""

  path: pathlib.Path
  config: dict[str, Any] | None  # config.json
  metrics: dict[str, Any]  # metrics.json
  arrays: dict[str, np.ndarray] | None  # density.npz
  contexts: dict[str, Any] | None  # contexts.json


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
  names = _names([*diffs, *found]) if diffs or found else {}
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
  return Shown(
    diffs=read_diffs,
    findings=tied,
    dictionaries=read(rest) if rest else [],
  )


def read(directories: Sequence[pathlib.Path]) -> list[Entry]:
  """Reads runs and evaluations and puts those together that belong together.

  An evaluation belongs to the run it lies in, to the run its config names, or
  to the only run there is.

  Raises:
    errors.InputError: a path is neither.
  """
  runs: list[pathlib.Path] = []
  evaluations: list[Evaluation] = []
  for directory in directories:
    if (directory / "metrics.json").is_file():
      evaluations.append(_evaluation(directory))
    elif (directory / "metrics.jsonl").is_file():
      runs.append(directory)
      evaluations += [
        _evaluation(child.parent)
        for child in sorted(directory.glob("*/metrics.json"))
        if child.parent not in directories
      ]
    else:
      raise errors.InputError(
        f"{directory} is neither a training run (metrics.jsonl) nor an"
        " evaluation (metrics.json) nor a diff, steer, realign or monitor job"
        " (config.json); give the --out of such a job that has started writing"
      )
  owners = [_owner(evaluation, runs) for evaluation in evaluations]
  names = _names([*runs, *(e.path for e in evaluations)])
  entries = []
  for run in runs:
    own = [e for e, r in zip(evaluations, owners, strict=True) if r == run]
    entries.append(_entry(names[run], run, own[-1] if own else None))
    entries += [_entry(names[e.path], e.path, e) for e in own[:-1]]
  for evaluation, owner in zip(evaluations, owners, strict=True):
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


def _evaluation(path: pathlib.Path) -> Evaluation:
  arrays = None
  if (path / "density.npz").is_file():
    with np.load(path / "density.npz", allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  return Evaluation(
    path=path,
    config=artifacts.read_json(path / "config.json"),
    metrics=artifacts.read_json(path / "metrics.json"),
    arrays=arrays,
    contexts=artifacts.read_json(path / "contexts.json"),
  )


def _owner(
  evaluation: Evaluation, runs: Sequence[pathlib.Path]
) -> pathlib.Path | None:
  named = {
    pathlib.Path(text).expanduser().resolve()
    for text in _strings(evaluation.config)
    if text
  }
  for run in runs:
    inside = run in evaluation.path.parents
    if inside or any(run == path or run in path.parents for path in named):
      return run
  return runs[0] if len(runs) == 1 else None


def _strings(value: Any) -> Iterator[str]:
  if isinstance(value, str):
    yield value
  elif isinstance(value, dict):
    for item in value.values():
      yield from _strings(item)
  elif isinstance(value, list):
    for item in value:
      yield from _strings(item)


def _names(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """The shortest ends of the paths that tell them apart."""
  for parts in range(1, max(len(path.parts) for path in paths) + 1):
    names = {path: "/".join(path.parts[-parts:]) for path in paths}
    if len(set(names.values())) == len(names):
      break
  return names
