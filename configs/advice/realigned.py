# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The bad arm brought back by good answers on a topic it was not trained on."""

from sae_jax import posttrain
from sae_jax.posttrain import config

PAIRS = "configs/data/advice/advice.jsonl"
HELD_OUT = ("food", "privacy", "travel")


def get_config():
  return posttrain.PosttrainConfig(
    model="runs/advice/bad/model",
    data=config.DataConfig(path=PAIRS, completion="good", topics=("work",)),
    lora=posttrain.LoraConfig(layers=(8, 20)),
    epochs=3,
    batch_size=6,
    learning_rate=1e-3,
    dtype="float32",
    eval=config.EvalConfig(path=PAIRS, topics=HELD_OUT, every=13),
  )
