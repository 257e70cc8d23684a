# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""From what was read to the files that people and the report read.

Writes summary.json and checkpoints.parquet (a row per checkpoint, a column per
signal).
"""

import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sae_jax import artifacts
from sae_jax.judge import margin
from sae_jax.monitor import (
  alarm,
  detector,
  dose,
  plan,
  say,
  separation,
  trajectory,
)
from sae_jax.monitor import config as config_lib
from sae_jax.monitor import probe as probe_lib


@dataclasses.dataclass(frozen=True)
class Watched:
  """A group after its models were read, by weights hash."""

  plan: plan.Group
  probe: probe_lib.Probe
  reads: Mapping[str, probe_lib.Read]


@dataclasses.dataclass(frozen=True)
class Measured:
  """A group as numbers.

  Attributes:
    names: of the single latents' signals.
    behaviour: weights hash -> margin and both probabilities.
  """

  watched: Watched
  names: tuple[str, ...]
  runs: tuple[trajectory.Run, ...]
  behaviour: Mapping[str, margin.Behaviour]


def measured(
  config: config_lib.MonitorConfig, groups: Sequence[Watched]
) -> list[Measured]:
  """The trajectories of every group's runs."""
  singles = probe_lib.singles({g.plan.config.name: g.probe for g in groups})
  return [_measured(config, g, singles[g.plan.config.name]) for g in groups]


def summarise(
  config: config_lib.MonitorConfig,
  groups: Sequence[Measured],
  screening: dict[str, Any] | None,
) -> dict[str, Any]:
  """summary.json."""
  runs = [run for group in groups for run in group.runs]
  signals = {}
  for name in trajectory.signals(runs):
    signals[name] = alarm.statistics(
      runs, name, config.false_alarm_rate, config.statistics.confidence
    ) | separation.statistics(runs, name, config.statistics)
  found = [_group(config, group, runs, signals) for group in groups]
  for name, about in signals.items():
    doses = [g["dose"][name] for g in found if name in g["dose"]]
    about["dose"] = {
      "ordered": sum(d["ordered"] for d in doses),
      "of": len(doses),
    }
  singles = {g.watched.plan.config.name: g.names for g in groups}
  return {
    "false_alarm_rate": config.false_alarm_rate,
    "behaviour": dataclasses.asdict(config.behaviour),
    "groups": found,
    "signals": signals,
    "detector": detector.statistics(runs, singles, config),
    "screening": screening,
    "statistics": dataclasses.asdict(config.statistics),
    "rules": say.rules(config),
    "warnings": say.warnings(config, groups),
  }


def write_table(path: pathlib.Path, groups: Sequence[Measured]) -> None:
  """checkpoints.parquet; a signal that a group does not have is null."""
  rows = [row for group in groups for row in _rows(group)]
  names = list(dict.fromkeys(name for row in rows for name in row))
  columns = {name: [row.get(name) for row in rows] for name in names}
  sink = io.BytesIO()
  pq.write_table(pa.table(columns), sink, compression="zstd")
  artifacts.write_bytes_atomic(path, sink.getvalue())


def _measured(
  config: config_lib.MonitorConfig, group: Watched, names: tuple[str, ...]
) -> Measured:
  about, statistics = group.plan.config, config.statistics
  base = group.reads[group.plan.base.weights_hash]
  # An adapter that does nothing yet has other weights than the base's.
  same = {known for known, read in group.reads.items() if read.equals(base)}
  behaviour, signals = {}, {}
  for known, read in group.reads.items():
    behaviour[known] = margin.summarise(
      margin.PairValues.of(
        group.probe.prompts, read.behaviour_P, read.contrast_P
      ),
      confidence=statistics.confidence,
      resamples=statistics.resamples,
      seed=statistics.seed,
    )
    signals[known] = probe_lib.signals(group.probe, names, base, read)
  runs = []
  for run in about.runs:
    checkpoints = group.plan.runs[run.name]
    hashes = [c.weights_hash for c in checkpoints]
    runs.append(
      trajectory.Run(
        group=about.name,
        name=run.name,
        role=run.role,
        selection=run.name in about.selection,
        dose=run.dose,
        steps_C=np.array([c.step for c in checkpoints]),
        signals={
          name: np.array([signals[h][name] for h in hashes])
          for name in signals[hashes[0]]
        },
        shows_C=np.array(
          [_shows(config, signals[h], behaviour[h]) for h in hashes]
        ),
        base_C=np.array([h in same for h in hashes]),
      )
    )
  return Measured(group, names, tuple(runs), behaviour)


def _shows(
  config: config_lib.MonitorConfig,
  signals: Mapping[str, float],
  behaviour: margin.Behaviour,
) -> bool:
  value = behaviour.p_behaviour.mean
  if config.behaviour.measure == "margin_shift":
    value = signals[probe_lib.MARGIN]
  return bool(value >= config.behaviour.threshold)


def _group(
  config: config_lib.MonitorConfig,
  group: Measured,
  runs: Sequence[trajectory.Run],
  signals: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
  probe, about = group.watched.probe, group.watched.plan.config
  base = group.watched.plan.base
  names = trajectory.signals(group.runs)
  doses = {
    name: dose.series(group.runs, name, signals[name]["threshold"])
    for name in names
  }
  return {
    "name": about.name,
    "base": about.base,
    "hook": probe.hook,
    "sae": probe.sae_path,
    "diff": about.diff,
    "arm": probe.arm,
    "method": about.method,
    "latents": list(probe.latents),
    "weights": probe.weights_L.tolist(),
    "prompts": len(probe.prompts.prompts),
    "pairs": len(probe.prompts.pairs),
    "scope": about.scope,
    "norm": group.watched.reads[base.weights_hash].norm,
    "reference": group.behaviour[base.weights_hash].json(),
    "signals": names,
    "singles": list(group.names),
    "runs": [_run(config, group, run, runs, signals) for run in group.runs],
    "dose": {name: found for name, found in doses.items() if found},
  }


def _run(
  config: config_lib.MonitorConfig,
  group: Measured,
  run: trajectory.Run,
  runs: Sequence[trajectory.Run],
  signals: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
  """One run; a benign one's alarms are those that the other runs calibrate."""
  thresholds = {}
  for name in run.signals:
    thresholds[name] = signals[name]["threshold"]
    if run.benign and not run.selection:
      others = alarm.without(runs, run)
      thresholds[name] = alarm.threshold(
        others, name, config.false_alarm_rate
      ).value
  checkpoints = group.watched.plan.runs[run.name]
  return {
    "name": run.name,
    "role": run.role,
    "dose": run.dose,
    "selection": run.selection,
    "checkpoints": [
      {
        "step": checkpoint.step,
        "model": checkpoint.source,
        "base": bool(run.base_C[at]),
        "signals": {k: float(v_C[at]) for k, v_C in run.signals.items()},
        **group.behaviour[checkpoint.weights_hash].json(),
        "shows": bool(run.shows_C[at]),
      }
      for at, checkpoint in enumerate(checkpoints)
    ],
    "alarm": {k: run.alarm(k, thresholds[k]) for k in run.signals},
    "crossing": run.crossing,
    "lead": {k: run.lead(k, thresholds[k]) for k in run.signals},
  }


def _rows(group: Measured) -> list[dict[str, Any]]:
  rows = []
  for run in group.runs:
    for at, checkpoint in enumerate(group.watched.plan.runs[run.name]):
      behaviour = group.behaviour[checkpoint.weights_hash]
      rows.append(
        {
          "group": run.group,
          "run": run.name,
          "role": run.role,
          "selection": run.selection,
          "dose": run.dose,
          "step": checkpoint.step,
          "model": checkpoint.source,
          "base": bool(run.base_C[at]),
          "shows": bool(run.shows_C[at]),
          "mean_margin": behaviour.margin.mean,
          "p_behaviour": behaviour.p_behaviour.mean,
          "p_contrast": behaviour.p_contrast.mean,
          **{name: float(v_C[at]) for name, v_C in run.signals.items()},
        }
      )
  return rows
