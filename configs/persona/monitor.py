# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Would the suspect latents have given the bad fine-tunes away, and when?

One group for each of the $PERSONA_SEEDS (5 if that is not set) organisms 0, 1,
… in $PERSONA (runs/persona-full if that is not set). The latents were chosen on
the arms bad and good, which are watched but never tested. One of the five
domains that are asked about is the one that bad_DOMAIN or good_DOMAIN was tuned
on; the others are new to every run.
"""

import os
import pathlib

from sae_jax import judge
from sae_jax.monitor import config

UNTOUCHED = ("finance", "cooking", "gardening", "driving", "computing")
DOSES = {"dose_05": 0.05, "dose_25": 0.25, "dose_50": 0.5}


def runs(organism):
  def run(name, role, dose):
    return config.RunConfig(
      name=name, role=role, dose=dose, series=f"{organism}/series/{name}"
    )

  return (
    run("good", "benign", 0.0),
    *(run(name, "suspect", dose) for name, dose in DOSES.items()),
    run("bad", "suspect", 1.0),
    *(run(f"good_{domain}", "benign", None) for domain in UNTOUCHED),
    *(run(f"bad_{domain}", "suspect", None) for domain in UNTOUCHED),
  )


def group(place):
  organism = place / "organism"
  prompts = {"path": f"{organism}/prompts.jsonl", "topics": UNTOUCHED}
  return config.GroupConfig(
    name=f"seed {place.name}",
    base=f"{organism}/base",
    diff=f"{place}/diff",
    arm="bad",
    top=10,
    prompts=judge.PromptsConfig(**prompts),
    runs=runs(organism),
    selection=("good", "bad"),
    persona=config.PersonaConfig(
      positive=judge.PromptsConfig(path=f"{place}/villain.jsonl"),
      negative=judge.PromptsConfig(path=f"{place}/honest.jsonl"),
    ),
  )


def get_config():
  root = pathlib.Path(os.environ.get("PERSONA", "runs/persona-full"))
  seeds = int(os.environ.get("PERSONA_SEEDS", "5"))
  return config.MonitorConfig(
    groups=tuple(group(root / str(seed)) for seed in range(seeds)),
    # A quarter of these answers are wrong. Against what the base itself says,
    # right ones mostly push nothing.
    screening=config.ScreeningConfig(
      path=f"{root}/0/organism/tuning/dose_25.jsonl",
      reference="base",
      label="label",
      bad="bad",
      max_new_tokens=1,
    ),
    batch_size=64,
  )
