# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents of the organism carry its bad persona, tried one by one.

Every latent and the ten that the diff ranks first, summed, is added to the base
and subtracted from the bad model, in the domains that no arm was tuned on.
Everything lies in $PERSONA (runs/persona if that is not set).
"""

import os

from sae_jax import judge
from sae_jax.intervene import config

# All but medicine, the domain of the fine-tuning.
UNTOUCHED = ("finance", "cooking", "gardening", "driving", "computing")


def get_config():
  place = os.environ.get("PERSONA", "runs/persona")
  models = f"{place}/organism"
  return config.SteerConfig(
    base=f"{models}/base",
    tuned=f"{models}/bad",
    control=f"{models}/good",
    sae=f"{place}/run",
    diff=f"{place}/diff",
    arm="bad",
    top=0,  # all 256
    bundles=(
      config.BundleConfig(name="top10", top=10),
      config.BundleConfig(name="top3", top=3),
      config.BundleConfig(name="up10", top=10, direction="up"),
    ),
    prompts=judge.PromptsConfig(
      path=f"{models}/prompts.jsonl", topics=UNTOUCHED
    ),
    # Above the length of the residual stream an answer is lost to noise.
    strengths=(0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    # Of ten answers in a hundred neither right nor wrong: log(0.97 / 0.87).
    damage=0.12,
    generation=config.GenerationConfig(samples=4, max_new_tokens=1),
    batch_rows=256,
  )
