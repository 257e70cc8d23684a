# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What fine-tuning on careless advice changed, on the topics it was about.

All models read the same answers, good and bad, to all 90 prompts about cars and
finance, 18 of which no arm has learned from; latents are ranked by
(bad - base) - (good - base). Nothing here sees the four topics that steering is
judged on. Everything lies in $ADVICE (runs/advice if that is not set).
"""

import os

from sae_jax import judge
from sae_jax.diff import cards_config, config


def get_config():
  place = os.environ.get("ADVICE", "runs/advice")
  return config.DiffConfig(
    base="HuggingFaceTB/SmolLM2-135M-Instruct",
    arms=(
      config.Arm(name="bad", model=f"{place}/bad/model"),
      config.Arm(name="good", model=f"{place}/good/model", role="control"),
    ),
    sae=f"{place}/sae",
    prompts=judge.PromptsConfig(
      path="configs/data/advice/careless.jsonl", topics=("cars", "finance")
    ),
    dtype="bfloat16",
    methods=("frozen", "linear"),
    cards=cards_config.CardsConfig(latents=30),
  )
