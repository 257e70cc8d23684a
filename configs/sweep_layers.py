# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
r"""A dictionary for each of four layers, on one reading of the same rows.

Needs a store with the four hooks, which one pass of the model fills. After
launch/quickstart.sh, in its environment and with the model that it names:

  hooks="'blocks.3.hook_resid_post','blocks.5.hook_resid_post'"
  hooks="$hooks,'blocks.7.hook_resid_post','blocks.9.hook_resid_post'"
  sae-jax harvest --config=configs/quickstart/harvest.py \
    --config.model=MODEL --config.hooks="($hooks)" --out=runs/layers/store
"""

from sae_jax import sae, stream
from sae_jax.train import config, optimizer


def get_config():
  return config.TrainConfig(
    store="runs/layers/store",
    hook="blocks.9.hook_resid_post",
    sae=sae.SaeConfig(latents=4608, k=32, dead_after_tokens=200_000),
    sweep=tuple(
      config.MemberConfig(hook=f"blocks.{layer}.hook_resid_post")
      for layer in (3, 5, 7, 9)
    ),
    optimizer=optimizer.OptimizerConfig(
      learning_rate=1e-3, warmup_steps=100, decay_fraction=0.3
    ),
    stream=stream.StreamConfig(batch_size=2048, mix_chunks=32),
    steps=1000,
    held_out_rows=8192,
    eval_every=100,
    checkpoint_every=250,
  )
