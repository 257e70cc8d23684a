# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A TopK SAE of 256 latents on the organism's residual stream, in seconds.

The store is $PERSONA/store (runs/persona/store if that is not set).
"""

import os

from sae_jax import sae, stream
from sae_jax.train import config, optimizer


def get_config():
  place = os.environ.get("PERSONA", "runs/persona")
  return config.TrainConfig(
    store=f"{place}/store",
    hook="blocks.1.hook_resid_post",
    # The recipe that README's figures of the organism were found with.
    sae=sae.SaeConfig(
      latents=256,
      k=8,
      dead_after_tokens=50_000,
      log_loss=False,
      matmul_dtype="float32",
    ),
    optimizer=optimizer.OptimizerConfig(
      learning_rate=2e-3, warmup_steps=20, decay_fraction=0.3
    ),
    stream=stream.StreamConfig(batch_size=512, mix_chunks=32),
    steps=700,
    held_out_rows=8192,
    eval_every=100,
    checkpoint_every=350,
  )
