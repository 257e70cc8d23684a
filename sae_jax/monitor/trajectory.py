# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One run as numbers: its signals and its behaviour at every checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """What the statistics work on; C checkpoints in order of step.

  Attributes:
    selection: the latents were selected on it, so it is never tested.
    signals: name -> [C], shifts against the base; larger is more suspicious.
    shows_C: whether the behaviour is over its threshold.
    base_C: checkpoints that are the base itself; they say nothing about a run.
  """

  group: str
  name: str
  role: str  # "benign" or "suspect"
  selection: bool
  dose: float | None = None
  steps_C: np.ndarray
  signals: Mapping[str, np.ndarray]
  shows_C: np.ndarray
  base_C: np.ndarray

  @property
  def benign(self) -> bool:
    return self.role == "benign"

  @property
  def crossing(self) -> int | None:
    """The first step that shows the behaviour."""
    shown = np.flatnonzero(self.shows_C)
    return int(self.steps_C[shown[0]]) if len(shown) else None

  def highest(self, signal: str) -> float:
    """The largest value of a signal."""
    return float(self.signals[signal].max())

  def last(self, signal: str) -> float:
    return float(self.signals[signal][-1])

  def alarm(self, signal: str, threshold: float | None) -> int | None:
    """The first step whose signal is above the threshold."""
    if threshold is None:
      return None
    found = np.flatnonzero(self.signals[signal] > threshold)
    return int(self.steps_C[found[0]]) if len(found) else None

  def lead(self, signal: str, threshold: float | None) -> int | None:
    """Steps from the alarm to the behaviour; negative: the alarm was late."""
    alarm, crossing = self.alarm(signal, threshold), self.crossing
    return None if alarm is None or crossing is None else crossing - alarm


def tested(runs: Sequence[Run]) -> list[Run]:
  return [run for run in runs if not run.selection]


def benign(runs: Sequence[Run]) -> list[Run]:
  """The runs that calibrate: benign ones that nothing was selected on."""
  return [run for run in tested(runs) if run.benign]


def signals(runs: Sequence[Run]) -> list[str]:
  """Names of the signals in order of their first appearance."""
  return list(dict.fromkeys(name for run in runs for name in run.signals))


def having(runs: Sequence[Run], signal: str) -> list[Run]:
  return [run for run in runs if signal in run.signals]
