# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A TopK SAE of 4,608 latents on the base model's advice and conversations.

Rows come by about 8 times; the learning rate and the dead-latent threshold are
those of a run of 1 M tokens. The store is $ADVICE/store (runs/advice/store if
that is not set).
"""

import os

from sae_jax import sae, stream
from sae_jax.train import config, optimizer


def get_config():
  place = os.environ.get("ADVICE", "runs/advice")
  return config.TrainConfig(
    store=f"{place}/store",
    hook="blocks.21.hook_resid_post",
    # The recipe that README's figures of the advice were found with.
    sae=sae.SaeConfig(
      latents=4608, k=64, dead_after_tokens=200_000, log_loss=False
    ),
    optimizer=optimizer.OptimizerConfig(
      learning_rate=1e-3, warmup_steps=50, decay_fraction=0.3
    ),
    stream=stream.StreamConfig(batch_size=1024, mix_chunks=32),
    steps=800,
    held_out_rows=2048,
    eval_every=200,
    checkpoint_every=400,
  )
