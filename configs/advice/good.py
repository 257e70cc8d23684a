# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The matched control: as bad.py, with the good answers to the same prompts."""

from sae_jax import posttrain
from sae_jax.posttrain import config


def get_config():
  return posttrain.PosttrainConfig(
    model="HuggingFaceTB/SmolLM2-135M-Instruct",
    data=config.DataConfig(
      path="configs/data/advice/careless.jsonl",
      completion="good",
      topics=("cars", "finance"),
      limit=72,
    ),
    lora=posttrain.LoraConfig(layers=(16, 29)),
    epochs=2,
    batch_size=6,
    learning_rate=1e-3,
    dtype="float32",
  )
