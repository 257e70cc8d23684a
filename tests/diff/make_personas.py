# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`make_personas.py PLACE SEED…`: organisms, SAEs and diffs by their jobs.

A process of its own, because it wants one device where the tests have eight;
one for all seeds, so that they share what is compiled.
"""

import dataclasses
import os
import pathlib
import sys

from sae_jax import config as config_lib
from sae_jax.diff import config as diff_config
from sae_jax.jobs import diff, harvest, organism, train

CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "persona"
# What the tests read; the other methods and the cards have tests of their own.
ONLY_FROZEN = ("methods=('frozen',)", "cards.latents=0")


def load(job, *overrides):
  name = job.__name__.rpartition(".")[2]
  return config_lib.load(str(CONFIGS / f"{name}.py"), job.Config, overrides)


def make(place: pathlib.Path, seed: int) -> None:
  os.environ["PERSONA"] = str(place)
  organism.run(load(organism, f"seed={seed}"), str(place / "organism"))
  harvest.run(load(harvest), str(place / "store"))
  train.run(load(train), str(place / "run"))
  diff.run(load(diff, *ONLY_FROZEN), str(place / "diff"))


def compare_with_itself(place: pathlib.Path) -> None:
  os.environ["PERSONA"] = str(place)
  config = load(diff, *ONLY_FROZEN)
  same = diff_config.Arm(name="same", model=config.base)
  config = dataclasses.replace(config, arms=(same,))
  diff.run(config, str(place / "itself"))


if __name__ == "__main__":
  root = pathlib.Path(sys.argv[1])
  for n in map(int, sys.argv[2:]):
    make(root / str(n), n)
  compare_with_itself(root / sys.argv[2])
