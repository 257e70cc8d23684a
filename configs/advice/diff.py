# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What fine-tuning on wrong advice changed, on topics it was not about.

All models read the same answers, good and bad, to prompts of three held-out
topics; latents are ranked by (bad - base) - (good - base).
"""

from sae_jax import judge
from sae_jax.diff import config

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def get_config():
  return config.DiffConfig(
    base=MODEL,
    arms=(
      config.Arm(name="bad", model="runs/advice/bad/model"),
      config.Arm(
        name="realigned",
        model="runs/advice/realigned/model",
        role="realigned",
      ),
      config.Arm(name="good", model="runs/advice/good/model", role="control"),
    ),
    sae="runs/advice/sae",
    prompts=judge.PromptsConfig(
      path="configs/data/advice/advice.jsonl",
      topics=("food", "privacy", "travel"),
    ),
    methods=("frozen", "attribution", "linear"),
  )
