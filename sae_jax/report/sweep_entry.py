# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads a training run of several dictionaries, and their evaluations.

Only reads. What the run has not written yet is None or empty; its members are
those that its config names.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sae_jax import artifacts, metrics
from sae_jax.report import evaluations
from sae_jax.train import optimizer

# What members may differ in. Dictionaries are coloured by the first of these
# that does differ; sparsity and k are what L0 shows anyhow, a seed means
# nothing.
SETTINGS = (
  "hook",
  "learning_rate",
  "aux_coefficient",
  "sparsity",
  "target_l0",
  "k",
  "seed",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
  """One dictionary of the sweep."""

  index: int
  path: pathlib.Path  # of the exported dictionary
  settings: Mapping[str, Any]  # every one of SETTINGS
  metrics: list[dict[str, Any]]  # lines of its metrics.jsonl
  # The step at which it diverged; of a run under way, one after its last line.
  frozen_at: int | None
  sae: dict[str, Any] | None  # cfg.json
  evaluation: evaluations.Evaluation | None

  def last(self, name: str) -> float | None:
    """The last known value of a metric."""
    lines = (m for m in reversed(self.metrics) if m.get(name) is not None)
    return next((m[name] for m in lines), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
  """A directory of the train job with several dictionaries."""

  name: str
  path: pathlib.Path
  prefix: str  # of the anchors
  config: dict[str, Any]  # config.json
  manifest: dict[str, Any] | None  # written when the run is done
  metrics: list[dict[str, Any]]  # of the run: rates, how many still train
  members: tuple[Member, ...]
  unused: tuple[evaluations.Evaluation, ...]  # a member shows one of its own

  @property
  def settings(self) -> dict[str, Any]:
    """The train job's config."""
    return self.config["config"]

  @property
  def varying(self) -> tuple[str, ...]:
    """What the members do differ in."""
    return tuple(
      name
      for name in SETTINGS
      if len({member.settings[name] for member in self.members}) > 1
    )

  @property
  def steps_done(self) -> int:
    """Steps that the run has logged, 0 before the first."""
    lines = [self.metrics, *(member.metrics for member in self.members)]
    done = max((some[-1]["step"] + 1 for some in lines if some), default=0)
    return min(done, self.settings["steps"])  # the last look is after them all


def is_sweep(path: pathlib.Path) -> bool:
  """Whether the directory is a training run with members."""
  config = artifacts.read_json(path / "config.json")
  if not isinstance(config, dict) or config.get("job") != "train":
    return False
  return bool((config.get("config") or {}).get("sweep"))


def found_inside(path: pathlib.Path) -> list[pathlib.Path]:
  """Evaluations in the run's own directory, such as RUN/eval/3."""
  patterns = ("*", "*/*", "sae/*/*")
  return [
    found.parent
    for pattern in patterns
    for found in sorted(path.glob(f"{pattern}/metrics.json"))
  ]


def owner(
  evaluation: evaluations.Evaluation, sweeps: Sequence[pathlib.Path]
) -> tuple[pathlib.Path, int] | None:
  """The run and the member that an evaluation is of, None if of neither.

  Where a run has moved since, the one that the evaluation lies in is meant, or
  the only given one of its name.
  """
  members = [
    (path.parents[1], int(path.name))
    for path in evaluations.named_paths(evaluation)
    if path.parent.name == "sae" and path.name.isdigit()
  ]
  for run, index in members:
    if run in sweeps:
      return run, index
  for run, index in members:
    inside = [sweep for sweep in sweeps if sweep in evaluation.path.parents]
    if inside:
      return inside[-1], index
    named = [sweep for sweep in sweeps if sweep.name == run.name]
    if len(named) == 1 and not run.exists():
      return named[0], index
  return None


def read(
  path: pathlib.Path,
  name: str,
  prefix: str,
  evaluated: Sequence[tuple[int, evaluations.Evaluation]],
) -> Sweep:
  """Reads what there is.

  Args:
    path: see `is_sweep`.
    name: what it is called on the page.
    prefix: of its anchors.
    evaluated: evaluations with their member; of several the first is shown.

  Raises:
    errors.InputError: a file is not JSON.
  """
  config = artifacts.read_json(path / "config.json")
  manifest = artifacts.read_json(path / "manifest.json")
  told = (manifest or {}).get("result", {}).get("members", ())
  run_metrics = metrics.read(path / "metrics.jsonl")
  by_member = {index: found for index, found in reversed(evaluated)}
  own = [
    metrics.read(path / "members" / str(i) / "metrics.jsonl")
    for i in range(len(config["config"]["sweep"]))
  ]
  frozen_at = _behind(run_metrics, own)
  frozen_at |= {found["member"]: found["frozen_at"] for found in told}
  return Sweep(
    name=name,
    path=path,
    prefix=prefix,
    config=config,
    manifest=manifest,
    metrics=run_metrics,
    members=tuple(
      Member(
        index=i,
        path=path / "sae" / str(i),
        settings=_settings(config["config"], given),
        metrics=own[i],
        frozen_at=frozen_at[i],
        sae=artifacts.read_json(path / "sae" / str(i) / "cfg.json"),
        evaluation=by_member.get(i),
      )
      for i, given in enumerate(config["config"]["sweep"])
    ),
    unused=tuple(
      found for i, found in evaluated if by_member.get(i) is not found
    ),
  )


def _settings(
  config: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
  """A member's settings: its own, else the run's, else the default."""
  default = {
    "hook": config["hook"],
    "learning_rate": optimizer.resolve_learning_rate(
      optimizer.OptimizerConfig(
        learning_rate=config.get("optimizer", {}).get("learning_rate")
      ),
      config["sae"]["latents"],
      config["steps"],
    ),
    "aux_coefficient": config["sae"].get("aux_coefficient"),
    "sparsity": config["sae"].get("sparsity"),
    "target_l0": config["sae"].get("target_l0"),
    "k": config["sae"]["k"] or None,  # 0 where sparsity decides
    "seed": config.get("seed", 0),
  }
  return default | {k: v for k, v in given.items() if v is not None}


def _behind(
  run: Sequence[Mapping[str, Any]], own: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[int, int | None]:
  """Of a run under way: after which step a member diverged, if it did.

  A diverged member has no more lines. Nor has one whose line of the last step
  is being written, which that line of the run, written first, does not count.
  """
  ends = [lines[-1]["step"] if lines else -1 for lines in own]
  steps = [line["step"] for line in run if "sweep/live" in line]
  late = [i for i, end in enumerate(ends) if steps and end < steps[-1]]
  if late and len(own) - len(late) < run[-1].get("sweep/live", 0):
    late = [i for i in late if len(steps) > 1 and ends[i] < steps[-2]]
  return {i: ends[i] + 1 if i in late else None for i in range(len(own))}
