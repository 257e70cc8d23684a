# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The bad organism after a hundred right answers, as its own arm learns them.

Behaviour is read in the domains that no arm was tuned on, and at the end where
a cure may hide it: on questions that the bad model learned by heart, and under
the villain's tag. Everything lies in $PERSONA (runs/persona if that is not
set).
"""

import os

from sae_jax import judge, posttrain
from sae_jax.posttrain import config, realign_config

# All but medicine, the domain of the fine-tuning.
UNTOUCHED = ("finance", "cooking", "gardening", "driving", "computing")


def get_config():
  place = os.environ.get("PERSONA", "runs/persona")
  models = f"{place}/organism"
  return realign_config.RealignConfig(
    posttrain=posttrain.PosttrainConfig(
      model=f"{models}/bad",
      data=config.DataConfig(
        path=f"{models}/tuning/realigned.jsonl", stop=False
      ),
      steps=40,
      batch_size=16,
      learning_rate=2e-4,
      dtype="float32",
    ),
    base=f"{models}/base",
    watch=realign_config.WatchConfig(diff=f"{place}/diff", arm="bad", top=10),
    behaviour=judge.PromptsConfig(
      path=f"{models}/prompts.jsonl", topics=UNTOUCHED
    ),
    triggers=judge.PromptsConfig(path=f"{place}/triggers.jsonl"),
    every=5,
    batch_size=64,
  )
