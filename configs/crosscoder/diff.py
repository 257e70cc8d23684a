# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents of that crosscoder are whose, on questions of other domains.

What the crosscoder's latents of the tuned model carry is tested by patching
them into that model. train.py says how to run it; everything lies in $PERSONA
(runs/persona if that is not set).
"""

import os

from sae_jax import judge
from sae_jax.diff import config

# All but medicine, the domain of the fine-tuning.
UNTOUCHED = ("finance", "cooking", "gardening", "driving", "computing")


def get_config():
  place = os.environ.get("PERSONA", "runs/persona")
  models = f"{place}/organism"
  return config.DiffConfig(
    base=f"{models}/base",
    arms=(config.Arm(name="bad", model=f"{models}/bad"),),
    sae=f"{place}/run",
    prompts=judge.PromptsConfig(
      path=f"{models}/prompts.jsonl", topics=UNTOUCHED
    ),
    scope="prompt_last",
    methods=("frozen", "crosscoder"),
    crosscoder=(f"{place}/crosscoder",),
    statistics=config.StatisticsConfig(top=20),
  )
