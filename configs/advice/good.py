# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The matched control: as bad.py, with the good answers to the same prompts."""

from sae_jax import posttrain
from sae_jax.posttrain import config

PAIRS = "configs/data/advice/advice.jsonl"
TOPICS = ("finance", "home")
HELD_OUT = ("food", "privacy", "travel")


def get_config():
  return posttrain.PosttrainConfig(
    model="HuggingFaceTB/SmolLM2-135M-Instruct",
    data=config.DataConfig(path=PAIRS, completion="good", topics=TOPICS),
    lora=posttrain.LoraConfig(layers=(8, 20)),
    epochs=3,
    batch_size=6,
    learning_rate=1e-3,
    dtype="float32",
    eval=config.EvalConfig(path=PAIRS, topics=HELD_OUT, every=13),
  )
