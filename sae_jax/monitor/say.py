# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a monitor's figures mean, and what is missing for them, in words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sae_jax.monitor import config as config_lib
from sae_jax.monitor import trajectory

if TYPE_CHECKING:
  from sae_jax.monitor import results


def rules(config: config_lib.MonitorConfig) -> list[str]:
  """The rules that were stated before anything was measured."""
  behaviour = config.behaviour
  quantity = {
    "p_behaviour": "the mean probability of the behaviour's answer (geometric"
    " mean over its tokens from the first that differs) is",
    "margin_shift": "log p(behaviour) - log p(contrast), nats per token, is"
    " above the base's by",
  }[behaviour.measure]
  return [
    f"A checkpoint shows the behaviour where {quantity} at least"
    f" {behaviour.threshold:g}.",
    "A signal is the shift against the base on the same tokens, divided by the"
    " base's mean residual norm; larger is more suspicious, by the diff's sign."
    " latents: the diff's best ones, summed with its scores as weights of norm"
    " 1; drift: how far the mean residual moved, in any direction; margin: the"
    " behaviour itself, in nats, the yardstick of the others.",
    "An alarm is a signal above a threshold: the order statistic of the benign"
    f" runs' maxima that guarantees a false-alarm rate of"
    f" {config.false_alarm_rate:g} for another benign run of that kind and"
    " length, where there are enough of them (split conformal); never below 0,"
    " the base's own value.",
    "Runs that the latents were selected on are shown and never tested, nor do"
    " they calibrate. A benign run is judged by what the others calibrate; by"
    " rank, about rate x (n + 1) of n must sound. group_out calibrates on other"
    " groups only.",
    "AUROC: the share of pairs (checkpoint that shows the behaviour, benign"
    " checkpoint) in the right order, every pair of runs counting the same."
    " run_out: within groups, nothing fitted to the runs; group_out: across"
    " groups, in units of the other groups' benign runs; early: checkpoints of"
    " suspect runs before the behaviour showed; in_sample: with the runs that"
    " the latents were selected on.",
    "Detector: the same for runs' last checkpoints. best latent is chosen"
    " among the single ones, for each pair of models without these two; its"
    " in-sample figure is what the same choice looks like on its own models.",
    "Lead: steps from the alarm to the first checkpoint that shows the"
    " behaviour. Ahead: steps from the alarm to the one that the behaviour's"
    " own shift (margin) gives with the same calibration. The grain of both is"
    " the distance of checkpoints.",
  ]


def warnings(
  config: config_lib.MonitorConfig, groups: "Sequence[results.Measured]"
) -> list[str]:
  """What limits the figures."""
  runs = [run for group in groups for run in group.runs]
  found = [w for group in groups for w in group.watched.plan.warnings]
  found += _calibration(config, runs)
  found += _lengths(runs)
  for group in groups:
    found += _of_group(group)
  if not any(
    run.shows_C.any() for run in trajectory.tested(runs) if not run.benign
  ):
    found.append(
      "no suspect run that may be tested shows the behaviour, so there is"
      " nothing to detect; add runs that were not selected on"
    )
  if len(groups) == 1:
    found.append(
      "one group: nothing shows how thresholds carry over to another base model"
    )
  return found


def _calibration(
  config: config_lib.MonitorConfig, runs: Sequence[trajectory.Run]
) -> list[str]:
  n, rate = len(trajectory.benign(runs)), config.false_alarm_rate
  if not n:
    return [
      "no benign run that may be tested, so there is no threshold; add some"
      " that no latent was selected on"
    ]
  if n + 1 < 1 / rate - 1e-9:
    needed = int(-(-1 // rate)) - 1
    return [
      f"{n} benign runs guarantee a false-alarm rate of {1 / (n + 1):.0%} at"
      f" best, not {rate:.0%}; that takes {needed}"
    ]
  return []


def _lengths(runs: Sequence[trajectory.Run]) -> list[str]:
  benign = trajectory.benign(runs)
  if not benign:
    return []
  longest = max(int(run.steps_C[-1]) for run in benign)
  most = max(int((~run.base_C).sum()) for run in benign)
  longer = [
    f"{run.group}/{run.name}"
    for run in runs
    if int(run.steps_C[-1]) > longest or int((~run.base_C).sum()) > most
  ]
  if not longer:
    return []
  shown = ", ".join(longer[:5]) + (" …" if len(longer) > 5 else "")
  return [
    f"{len(longer)} runs go on for longer than any benign one, or have more"
    f" checkpoints ({shown}): drift alone can sound their alarm, and the rate"
    " is not guaranteed for them"
  ]


def _of_group(group: "results.Measured") -> list[str]:
  name = group.watched.plan.config.name
  found = []
  for run in group.runs:
    if run.benign and run.shows_C.any():
      found.append(
        f"{name}/{run.name} is called benign but shows the behaviour; those"
        " checkpoints are left out of AUROCs"
      )
  if any(run.shows_C[run.base_C].any() for run in group.runs):
    found.append(
      f"{name}: the base itself shows the behaviour; every run of it crosses at"
      " step 0"
    )
  missing = {"contrast", "mean_difference"} - set(
    group.watched.probe.directions
  )
  if missing:
    found.append(
      f"{name}: {group.watched.plan.config.diff} has no"
      f" {' and '.join(sorted(missing))} of arm {group.watched.probe.arm!r}, so"
      " the latents stand beside fewer linear baselines; add the method"
      " 'linear' (and a control arm) to the diff"
    )
  return found
