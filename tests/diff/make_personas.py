# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`make_personas.py PLACE SEED…`: organisms, SAEs, diffs, screens and cures.

A process of its own, because it wants one device where the tests have eight;
one for all seeds, as most of what the first takes is compilation. By the jobs
and configs that users run; what is finished is not made again.
"""

import dataclasses
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "launch"))

import persona_jobs

from sae_jax import config as config_lib
from sae_jax.diff import config as diff_config
from sae_jax.jobs import diff, harvest, monitor, organism, steer, train
from sae_jax.monitor import config as monitor_config

# What the tests read; the other methods and the cards have tests of their own.
ONLY_FROZEN = ("methods=('frozen',)", "cards.latents=0")
FROZEN_AND_LINEAR = ("methods=('frozen','linear')", "cards.latents=0")


def make(place: pathlib.Path, seed: int) -> None:
  os.environ["PERSONA"] = str(place)
  persona_jobs.run(organism, place / "organism", f"seed={seed}")
  persona_jobs.write_prompts(place)
  persona_jobs.run(harvest, place / "store")
  persona_jobs.run(train, place / "run")
  persona_jobs.run(diff, place / "diff", *FROZEN_AND_LINEAR)
  # What takes long and says the same of every seed is done for the first.
  first = seed == 0
  persona_jobs.run(
    steer, place / "steer", *([] if first else ["generation=None"])
  )
  persona_jobs.cure(place, "realign", "realigned", seed)
  if first:
    persona_jobs.cure(place, "realign_other", "realigned_other", seed)


def compare_with_itself(place: pathlib.Path) -> None:
  os.environ["PERSONA"] = str(place)
  config = config_lib.load(
    str(persona_jobs.CONFIGS / "diff.py"), diff.Config, ONLY_FROZEN
  )
  same = diff_config.Arm(name="same", model=config.base)
  config = dataclasses.replace(config, arms=(same,))
  diff.run(config, str(place / "itself"))


def watch_doses(root: pathlib.Path, seeds: list[str]) -> None:
  """The shipped monitor on the finished arms, without their series."""
  os.environ |= {"PERSONA": str(root), "PERSONA_SEEDS": str(len(seeds))}
  config = config_lib.load(
    str(persona_jobs.CONFIGS / "monitor.py"), monitor.Config, ()
  )
  groups = tuple(
    dataclasses.replace(group, runs=tuple(finished(group.runs)))
    for group in config.groups
  )
  config = dataclasses.replace(config, groups=groups)
  monitor.run(config, str(root / "monitor"))


def finished(runs):
  for run in runs:
    if run.dose is not None:
      series = pathlib.Path(run.series)
      model = str(series.parents[1] / series.name)
      yield monitor_config.RunConfig(
        name=run.name, role=run.role, dose=run.dose, models=(model,)
      )


if __name__ == "__main__":
  root = pathlib.Path(sys.argv[1])
  for n in sys.argv[2:]:
    make(root / n, int(n))
  compare_with_itself(root / sys.argv[2])
  watch_doses(root, sys.argv[2:])
