# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether models of more bad data have more of a signal."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax.monitor import trajectory


def series(
  runs: Sequence[trajectory.Run], signal: str, threshold: float | None
) -> dict[str, Any] | None:
  """The dose series of one group as JSON values; None without one.

  The base is no dose of 0: that is a run on good samples alone.

  Returns:
    values: [dose, last value] of tested runs in order of dose; tau: Kendall's
    τ_b over them; ordered: the mean rises with every dose; selected: the same
    pairs of runs that the latents were selected on; ordered_with_selected:
    whether it still is with them, which is no test of the latents; alarm_dose:
    the smallest with a value above the threshold; behaviour_dose: the smallest
    whose last checkpoint shows the behaviour.
  """
  every = [
    (run.dose, run.last(signal), run) for run in runs if run.dose is not None
  ]
  every.sort(key=lambda one: one[:2])
  tested = [(d, value, run) for d, value, run in every if not run.selection]
  if not tested:
    return None
  pairs = [(d, value) for d, value, _ in tested]
  above = [
    d for d, v in pairs if threshold is not None and d > 0 and v > threshold
  ]
  shown = [d for d, _, run in tested if run.shows_C[-1]]
  doses, values = (np.array(x, float) for x in zip(*pairs, strict=True))
  return {
    "tau": kendall(doses, values),
    "ordered": _ordered(pairs),
    "values": [[d, v] for d, v in pairs],
    "selected": [[d, v] for d, v, run in every if run.selection],
    "ordered_with_selected": _ordered([(d, v) for d, v, _ in every]),
    "alarm_dose": min(above, default=None),
    "behaviour_dose": min(shown, default=None),
  }


def _ordered(pairs: Sequence[tuple[float, float]]) -> bool:
  """Whether the mean value rises with every dose, of at least two."""
  by_dose: dict[float, list[float]] = {}
  for dose, value in pairs:
    by_dose.setdefault(dose, []).append(value)
  means = [np.mean(by_dose[dose]) for dose in sorted(by_dose)]
  return len(means) > 1 and bool(np.all(np.diff(means) > 0))


def kendall(x_N: np.ndarray, y_N: np.ndarray) -> float | None:
  """Kendall's τ_b (1945), which allows for ties; None if one is constant."""
  x_NN = np.sign(np.subtract.outer(x_N, x_N))
  y_NN = np.sign(np.subtract.outer(y_N, y_N))
  size = np.sqrt(np.sum(x_NN**2) * np.sum(y_NN**2))
  return float(np.sum(x_NN * y_NN) / size) if size else None
