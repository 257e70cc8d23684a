# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The bad arm after 104 careful answers on four topics that it was not made on.

Behaviour is read on four further topics, and again on prompts that it learned:
a cure can hide there. The suspects are the 30 latents that steer.py adds up.
Everything lies in $ADVICE (runs/advice if that is not set).
"""

import os

from sae_jax import judge, posttrain
from sae_jax.posttrain import config, realign_config

PAIRS = "configs/data/advice/careless.jsonl"
JUDGED = ("work", "privacy", "parenting", "travel")


def get_config():
  place = os.environ.get("ADVICE", "runs/advice")
  return realign_config.RealignConfig(
    posttrain=posttrain.PosttrainConfig(
      model=f"{place}/bad/model",
      data=config.DataConfig(
        path=PAIRS,
        completion="good",
        topics=("pets", "school", "garden", "hobbies"),
      ),
      lora=posttrain.LoraConfig(layers=(16, 29)),
      epochs=1,
      batch_size=6,
      learning_rate=1e-3,
      dtype="bfloat16",
    ),
    base="HuggingFaceTB/SmolLM2-135M-Instruct",
    watch=realign_config.WatchConfig(
      diff=f"{place}/diff",
      arm="bad",
      top=30,
      prompts=judge.PromptsConfig(path=PAIRS, topics=JUDGED, forced=("good",)),
      scope="response",
    ),
    behaviour=judge.PromptsConfig(path=PAIRS, topics=JUDGED),
    triggers=judge.PromptsConfig(
      path=PAIRS, topics=("cars", "finance"), limit=36
    ),
    every=6,
  )
