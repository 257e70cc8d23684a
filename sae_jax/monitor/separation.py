# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How well a signal tells checkpoints that show the behaviour from benign ones.

Positive are checkpoints of suspect runs that show the behaviour, negative
those of benign runs that do not. What suspect runs are before they show it is
neither: calling it negative would punish a signal for being early.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sae_jax.monitor import auroc, trajectory
from sae_jax.monitor import config as config_lib

Which = Callable[[trajectory.Run], np.ndarray]  # -> bool [C]


def showing(run: trajectory.Run) -> np.ndarray:
  """Checkpoints of a suspect run that show the behaviour."""
  return run.shows_C & ~run.base_C & (not run.benign)


def harmless(run: trajectory.Run) -> np.ndarray:
  """Checkpoints of a benign run that do not."""
  return ~run.shows_C & ~run.base_C & run.benign


def before(run: trajectory.Run) -> np.ndarray:
  """Checkpoints of a suspect run before any shows the behaviour."""
  not_yet_C = np.cumsum(run.shows_C) == 0
  return not_yet_C & ~run.base_C & (not run.benign)


def last_only(which: Which) -> Which:
  """Of these checkpoints a run's last, if that is one."""

  def chosen(run: trajectory.Run) -> np.ndarray:
    is_last_C = np.arange(len(run.steps_C)) == len(run.steps_C) - 1
    return which(run) & is_last_C

  return chosen


def sample(
  runs: Sequence[trajectory.Run],
  signal: str,
  which: Which,
  *,
  standard: bool = False,
) -> auroc.Sample:
  """The scores of the runs that have such checkpoints.

  Args:
    standard: in units of the benign runs of the *other* groups (their mean is
      0, their standard deviation 1); a group without such is left out.
  """
  scores, groups = [], []
  known = trajectory.having(runs, signal)
  units = _units(known, signal) if standard else {}
  for run in known:
    kept_C = which(run)
    if not kept_C.any():
      continue
    score_C = run.signals[signal][kept_C]
    if standard:
      if run.group not in units:
        continue
      mean, spread = units[run.group]
      score_C = (score_C - mean) / spread
    scores.append(score_C)
    groups.append(run.group)
  return auroc.Sample(tuple(scores), tuple(groups))


def statistics(
  runs: Sequence[trajectory.Run],
  signal: str,
  config: config_lib.StatisticsConfig,
) -> dict[str, Any]:
  """AUROCs of a signal over checkpoints as JSON values.

  Returns:
    auroc_run_out: runs of the same group, none of which the latents were
    selected on; nothing is fitted to them. auroc_group_out: runs of all groups
    on one scale, that of the other groups' benign runs; None for one group.
    auroc_early: as run_out, for checkpoints of suspect runs before any showed
    the behaviour. auroc_in_sample: as run_out, with the runs that the latents
    were selected on. roc: the curve of run_out's checkpoints, pooled.
  """
  tested = trajectory.tested(runs)
  positive = sample(tested, signal, showing)
  negative = sample(tested, signal, harmless)
  far_positive = sample(tested, signal, showing, standard=True)
  far_negative = sample(tested, signal, harmless, standard=True)
  return {
    "auroc_run_out": auroc.estimate(positive, negative, config),
    "auroc_group_out": auroc.estimate(
      far_positive, far_negative, config, across=True
    ),
    "auroc_early": auroc.estimate(
      sample(tested, signal, before), negative, config
    ),
    "auroc_in_sample": auroc.estimate(
      sample(runs, signal, showing), sample(runs, signal, harmless), config
    ),
    "roc": auroc.curve(_pooled(positive), _pooled(negative)),
  }


def _pooled(found: auroc.Sample) -> np.ndarray:
  return np.concatenate([np.zeros(0), *found.scores_N])


def _units(
  runs: Sequence[trajectory.Run], signal: str
) -> dict[str, tuple[float, float]]:
  """Group -> mean and spread of the other groups' benign checkpoints."""
  benign = trajectory.benign(runs)
  units = {}
  for group in {run.group for run in runs}:
    others = [
      run.signals[signal][harmless(run)] for run in benign if run.group != group
    ]
    values = np.concatenate([np.zeros(0), *others])
    if len(values):
      units[group] = float(values.mean()), float(values.std()) or 1.0
  return units
