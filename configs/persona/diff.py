# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What narrow fine-tuning on wrong answers changed inside the organism.

Looked at where the answer is about to come, on the domains that no arm was
tuned on. Everything lies in $PERSONA (runs/persona if that is not set).
"""

import os

from sae_jax import judge
from sae_jax.diff import cards_config, config
from sae_jax.lm import text

# All but medicine, the domain of the fine-tuning.
UNTOUCHED = ("finance", "cooking", "gardening", "driving", "computing")


def get_config():
  place = os.environ.get("PERSONA", "runs/persona")
  models = f"{place}/organism"
  return config.DiffConfig(
    base=f"{models}/base",
    arms=(
      config.Arm(name="bad", model=f"{models}/bad"),
      config.Arm(
        name="realigned", model=f"{models}/realigned", role="realigned"
      ),
      config.Arm(name="good", model=f"{models}/good", role="control"),
    ),
    sae=f"{place}/run",
    prompts=judge.PromptsConfig(
      path=f"{models}/prompts.jsonl", topics=UNTOUCHED
    ),
    scope="prompt_last",
    methods=("frozen", "attribution", "linear", "lens"),
    statistics=config.StatisticsConfig(top=20),  # of 256 latents
    lens=config.LensConfig(
      text=text.TextConfig(
        path=f"{models}/text.jsonl", context_length=34, packed=False
      )
    ),
    cards=cards_config.CardsConfig(
      views=(cards_config.ViewConfig(name="text", base=f"{place}/store"),)
    ),
  )
