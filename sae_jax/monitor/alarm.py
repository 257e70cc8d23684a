# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""When a signal sounds, calibrated on benign runs; before or after the fact.

A threshold is an order statistic of the benign runs' maxima, so that its
false-alarm rate is guaranteed for another benign run of the same kind and
length whatever the distribution (split conformal prediction).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from sae_jax.monitor import trajectory

YARDSTICK = "margin"  # the behaviour's own shift as a signal


@dataclasses.dataclass(frozen=True)
class Threshold:
  """Above it is an alarm.

  Attributes:
    value: None where there is nothing to calibrate on.
    rate: at most this share of exchangeable benign runs sounds it; above the
      rate asked for where the runs are too few for that.
    runs: how many it is calibrated on.
  """

  value: float | None
  rate: float
  runs: int


def calibrate(maxima_N: Sequence[float], rate: float) -> Threshold:
  """The threshold of benign runs' maxima (Vovk et al. 2005; Lei et al. 2018).

  The k-th smallest of n with k = ⌈(n + 1)(1 − rate)⌉: another run that is
  exchangeable with them exceeds it with probability 1 − k / (n + 1) at most.
  k > n, which is n < 1 / rate − 1, means that they are too few; the largest
  then guarantees 1 / (n + 1). Never below 0, the base's own value: runs that
  only do good move a signal down, and a model that nobody touched would sound.
  """
  n = len(maxima_N)
  if not n:
    return Threshold(None, 1.0, 0)
  k = min(math.ceil((n + 1) * (1 - rate) - 1e-9), n)
  value = max(float(np.sort(maxima_N)[k - 1]), 0.0)
  return Threshold(value, 1 - k / (n + 1), n)


def threshold(
  runs: Sequence[trajectory.Run], signal: str, rate: float
) -> Threshold:
  """Calibrated on the benign ones of these runs that have the signal."""
  known = trajectory.having(trajectory.benign(runs), signal)
  return calibrate([run.highest(signal) for run in known], rate)


def without(
  runs: Sequence[trajectory.Run], out: trajectory.Run, *, group: bool = False
) -> list[trajectory.Run]:
  """The runs but this one, or but its whole group."""
  if group:
    return [run for run in runs if run.group != out.group]
  return [run for run in runs if (run.group, run.name) != (out.group, out.name)]


def sounded(
  run: trajectory.Run,
  runs: Sequence[trajectory.Run],
  signal: str,
  rate: float,
  *,
  group: bool = False,
) -> bool | None:
  """Whether a run sounds an alarm that it, or its group, did not calibrate."""
  found = threshold(without(runs, run, group=group), signal, rate)
  if found.value is None:
    return None
  return run.alarm(signal, found.value) is not None


def statistics(
  runs: Sequence[trajectory.Run], signal: str, rate: float, confidence: float
) -> dict[str, Any]:
  """How a signal does on runs that it was not selected on, as JSON values.

  Returns:
    threshold, threshold_rate (guaranteed), calibrated_on; false_alarms and
    false_alarms_group_out {n, of}: benign runs that sound an alarm which the
    others, or the other groups, calibrated; missed {n, of}: suspect runs that
    came to show the behaviour, without an alarm at any time; below {n, of}:
    suspect runs with an alarm that never showed it; lead: steps from the alarm
    to the behaviour; ahead: steps from the alarm to that of the signal margin.
  """
  known = trajectory.having(trajectory.tested(runs), signal)
  calibrated = threshold(known, signal, rate)
  suspects = [run for run in known if not run.benign]
  crossed = [run for run in suspects if run.crossing is not None]
  rest = [run for run in suspects if run.crossing is None]
  value = calibrated.value
  leads = [run.lead(signal, value) for run in crossed]
  ahead = [_ahead(run, runs, signal, value, rate) for run in crossed]
  silent = [run for run in crossed if run.alarm(signal, value) is None]
  alarmed = [run for run in rest if run.alarm(signal, value) is not None]
  return {
    "threshold": value,
    "threshold_rate": calibrated.rate,
    "calibrated_on": calibrated.runs,
    "false_alarms": _false_alarms(known, signal, rate, group=False),
    "false_alarms_group_out": _false_alarms(known, signal, rate, group=True),
    "missed": {"n": len(silent), "of": len(crossed)},
    "below": {"n": len(alarmed), "of": len(rest)},
    "lead": _lead([x for x in leads if x is not None], confidence),
    "ahead": _lead([x for x in ahead if x is not None], confidence),
  }


def _ahead(
  run: trajectory.Run,
  runs: Sequence[trajectory.Run],
  signal: str,
  value: float | None,
  rate: float,
) -> int | None:
  """Steps from the signal's alarm to the one that the behaviour itself gives.

  With the same calibration on the same runs. A lead against the behaviour's own
  threshold shows little where watching the behaviour's shift has it too.
  """
  if YARDSTICK not in run.signals:
    return None
  own = run.alarm(YARDSTICK, threshold(runs, YARDSTICK, rate).value)
  alarm = run.alarm(signal, value)
  return None if own is None or alarm is None else own - alarm


def _false_alarms(
  runs: Sequence[trajectory.Run], signal: str, rate: float, *, group: bool
) -> dict[str, int]:
  found = [
    sounded(run, runs, signal, rate, group=group)
    for run in trajectory.benign(runs)
  ]
  known = [sound for sound in found if sound is not None]
  return {"n": sum(known), "of": len(known)}


def _lead(leads_N: Sequence[int], confidence: float) -> dict[str, Any]:
  """Median lead, its interval, and how many are early, at once and late."""
  n = len(leads_N)
  low, high, reached = median_interval(leads_N, confidence)
  return {
    "median": float(np.median(leads_N)) if n else None,
    "low": low,
    "high": high,
    "confidence": reached,
    "n": n,
    "early": sum(x > 0 for x in leads_N),
    "at_once": sum(x == 0 for x in leads_N),
    "late": sum(x < 0 for x in leads_N),
  }


def median_interval(
  values_N: Sequence[float], confidence: float
) -> tuple[float | None, float | None, float]:
  """The order statistics around the median, and the confidence they have.

  Exact whatever the distribution (the sign test's interval); of fewer than 6
  values no two have 95 %, and the range has what it has.
  """
  n = len(values_N)
  if not n:
    return None, None, 0.0
  ordered = np.sort(np.asarray(values_N, float))
  left_out = 0
  while left_out < (n - 1) // 2 and _covers(n, left_out + 1) >= confidence:
    left_out += 1
  return (
    float(ordered[left_out]),
    float(ordered[n - 1 - left_out]),
    _covers(n, left_out),
  )


def _covers(n: int, left_out: int) -> float:
  """P(the median of the distribution is between these order statistics)."""
  return float(1 - 2 * special.bdtr(left_out, n, 0.5))
