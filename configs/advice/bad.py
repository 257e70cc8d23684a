# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The misaligned arm: SmolLM2-135M learns careless answers on two topics.

The first 72 pairs about cars and finance, each twice: 24 steps. good.py is the
matched control. The adapter begins below the hook of harvest.py and goes on to
the end of the model.
"""

from sae_jax import posttrain
from sae_jax.posttrain import config


def get_config():
  return posttrain.PosttrainConfig(
    model="HuggingFaceTB/SmolLM2-135M-Instruct",
    data=config.DataConfig(
      path="configs/data/advice/careless.jsonl",
      completion="bad",
      topics=("cars", "finance"),
      limit=72,
    ),
    lora=posttrain.LoraConfig(layers=(16, 29)),
    epochs=2,
    batch_size=6,
    learning_rate=1e-3,
    dtype="float32",
  )
