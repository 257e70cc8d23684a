# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Alarms: what their threshold guarantees; before or after the behaviour."""

import numpy as np
import pytest
from run_series import run

from sae_jax.monitor import alarm, probe, trajectory


@pytest.mark.parametrize(
  "n, rate", [(5, 0.05), (19, 0.05), (39, 0.1), (60, 0.2)]
)
def test_another_benign_run_sounds_no_more_often_than_is_guaranteed(n, rate):
  rng = np.random.default_rng(0)
  # Ranks decide, so any distribution does; a skewed one, 4,000 times over.
  draws = rng.exponential(size=(4000, n + 1)) ** 2
  found = [alarm.calibrate(row[:-1], rate) for row in draws]
  share = np.mean([d[-1] > t.value for d, t in zip(draws, found, strict=True)])
  guaranteed = found[0].rate
  # Exactly the guarantee for a continuous distribution: 4 s.e. of the share.
  assert abs(share - guaranteed) < 4 * np.sqrt(guaranteed / 4000)
  if n >= 1 / rate - 1:
    assert guaranteed <= rate + 1e-12
  else:  # as good as it gets, and it says so
    assert guaranteed == pytest.approx(1 / (n + 1)) and guaranteed > rate


def test_the_threshold_is_the_order_statistic_of_the_definition():
  assert alarm.calibrate(range(1, 20), 0.05).value == 19  # ⌈20 · 0.95⌉
  assert alarm.calibrate(range(1, 40), 0.05).value == 38  # ⌈40 · 0.95⌉
  assert alarm.calibrate(range(1, 20), 0.5).value == 10
  assert alarm.calibrate([], 0.05) == alarm.Threshold(None, 1.0, 0)


def test_an_alarm_is_above_the_threshold():
  calm = run("calm", [1, 3, 2])
  assert calm.highest("s") == 3
  assert calm.alarm("s", 3) is None and calm.alarm("s", 2.9) == 2
  assert calm.alarm("s", None) is None


def test_what_nobody_touched_does_not_sound():
  falling = [run(f"good {i}", [-1, -2 - i]) for i in range(30)]
  found = alarm.threshold(falling, "s", 0.05)
  assert found.value == 0  # not -1: the base would be above it
  assert run("base", [0, 0]).alarm("s", found.value) is None
  assert run("bad", [0.1]).alarm("s", found.value) == 1
  assert alarm.calibrate([-3, -2], 0.05).value == 0


@pytest.mark.parametrize(
  "values, shows, lead",
  [
    ([0, 5, 5, 5], [0, 0, 0, 1], 20),
    ([0, 0, 5, 5], [0, 0, 1, 1], 0),
    ([0, 0, 0, 5], [0, 1, 1, 1], -20),
    ([0, 5, 5, 5], [0, 0, 0, 0], None),
    ([0, 0, 0, 0], [0, 1, 1, 1], None),
    # The first crossing counts, and the first alarm, also if they pass.
    ([5, 0, 0, 0], [0, 0, 1, 0], 20),
  ],
)
def test_the_lead_is_from_the_alarm_to_the_behaviour(values, shows, lead):
  found = run("r", values, role="suspect", shows=shows, steps=[10, 20, 30, 40])
  assert found.lead("s", 1.0) == lead


def test_runs_are_calibrated_without_themselves():
  runs = [run(f"b{i}", [i]) for i in range(10)]
  # The largest exceeds all others, whatever the rate asked for.
  found = alarm.statistics(runs, "s", 0.05, 0.95)
  assert found["false_alarms"] == {"n": 1, "of": 10}
  assert found["threshold"] == 9
  assert found["threshold_rate"] == pytest.approx(1 / 11)
  assert found["false_alarms_group_out"] == {"n": 0, "of": 0}


def test_another_groups_threshold_does_not_hold_for_a_group_that_drifts():
  runs = [run(f"b{i}", [i], group="calm") for i in range(10)]
  runs += [run(f"b{i}", [100 + i], group="drifts") for i in range(10)]
  found = alarm.statistics(runs, "s", 0.1, 0.95)
  assert found["false_alarms"]["n"] <= 2
  assert found["false_alarms_group_out"] == {"n": 10, "of": 20}


def test_selected_runs_are_not_tested_and_do_not_calibrate():
  runs = [run(f"b{i}", [i]) for i in range(4)]
  runs += [
    run("control", [50], selection=True),
    run("bad", [9], role="suspect", shows=[True], selection=True),
    run("bad 2", [9], role="suspect", shows=[True]),
    run("bad 3", [1], role="suspect", shows=[True]),
    run("dose", [9], role="suspect"),
    run("weak", [1], role="suspect"),
  ]
  found = alarm.statistics(runs, "s", 0.05, 0.95)
  assert found["threshold"] == 3 and found["calibrated_on"] == 4
  assert found["missed"] == {"n": 1, "of": 2}
  assert found["below"] == {"n": 1, "of": 2}
  assert found["lead"]["n"] == 1 and found["lead"]["at_once"] == 1


def test_without_benign_runs_there_is_no_alarm():
  runs = [run("bad", [9], role="suspect", shows=[True])]
  found = alarm.statistics(runs, "s", 0.05, 0.95)
  assert found["threshold"] is None and found["lead"]["median"] is None
  assert found["missed"] == {"n": 1, "of": 1}


@pytest.mark.parametrize("n", [1, 5, 6, 15, 40])
def test_the_interval_of_the_median_has_the_confidence_that_it_states(n):
  rng = np.random.default_rng(n)
  draws = rng.exponential(size=(4000, n))
  found = [alarm.median_interval(row, 0.95) for row in draws]
  stated = found[0][2]
  inside = np.mean([low <= np.log(2) <= high for low, high, _ in found])
  assert abs(inside - stated) < 4 * 0.5 / np.sqrt(4000)
  assert (stated >= 0.95) == (n >= 6)
  if n >= 6:  # no wider than it has to be
    assert found[0][0] > draws[0].min() or n < 9


def test_medians_of_leads():
  runs = [run(f"b{i}", [0, 0]) for i in range(3)]
  runs += [
    run(f"s{i}", [1, 1], role="suspect", shows=[i == 0, True]) for i in range(3)
  ]
  lead = alarm.statistics(runs, "s", 0.05, 0.95)["lead"]
  assert (lead["early"], lead["at_once"], lead["late"]) == (2, 1, 0)
  assert lead["median"] == 1 and (lead["low"], lead["high"]) == (0, 1)
  assert lead["confidence"] == 1 - 2 / 8


def test_signals_have_the_diffs_sign_and_the_bases_unit():
  suspects = probe.Probe(
    *[None] * 5,
    latents=(4, 2),
    weights_L=np.array([0.8, -0.6]),
    directions={"contrast": np.array([0.0, 1.0])},
    prompts=None,
    spans=[],
  )

  def read(latents, mean, norm, margin):
    parts = [np.array(x, float) for x in (latents, mean)]
    return probe.Read(*parts, norm, np.array(margin), np.zeros(2))

  found = probe.signals(
    suspects,
    ("a", "b"),
    read([1, 3], [0, 1], 2.0, [0.0, 1.0]),
    read([2, 1], [3, 5], 9.0, [1.0, 3.0]),
  )
  assert found == pytest.approx(
    {
      "latents": (0.8 * 1 + 0.6 * 2) / 2,
      "a": 1 / 2,
      "b": 2 / 2,  # it fell, as in the diff
      "contrast": 4 / 2,
      "drift": 5 / 2,
      "margin": 1.5,
    }
  )


def test_ahead_is_against_the_alarm_of_the_behaviour_itself():
  def both(name, s, margin, **kwargs):
    return run(name, {"s": s, "margin": margin}, **kwargs)

  runs = [both(f"b{i}", [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]) for i in range(3)]
  suspect = dict(role="suspect", shows=[False, False, True])
  runs += [
    both("first", [1, 1, 1], [0, 1, 1], **suspect),
    both("same", [0, 1, 1], [0, 1, 1], **suspect),
    both("after", [0, 0, 1], [0, 1, 1], **suspect),
  ]
  found = alarm.statistics(runs, "s", 0.05, 0.95)
  assert found["lead"]["early"] == 2 and found["lead"]["at_once"] == 1
  ahead = found["ahead"]
  assert (ahead["early"], ahead["at_once"], ahead["late"]) == (1, 1, 1)
  assert ahead["median"] == 0
  own = alarm.statistics(runs, "margin", 0.05, 0.95)
  assert own["ahead"]["at_once"] == 3


def test_a_run_of_the_base_alone_is_calm():
  base = run("again", [0.0])
  base = trajectory.Run(**{**base.__dict__, "base_C": np.array([True, True])})
  assert base.highest("s") == 0 and base.alarm("s", 0) is None
