# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
r"""A skip transcoder: what an MLP adds to the stream, from what it reads there.

Needs a store with both hooks, which one pass of the model fills. After
launch/quickstart.sh, in its environment and with the model that it names:

  hooks="'blocks.9.hook_resid_mid','blocks.9.hook_mlp_out'"
  sae-jax harvest --config=configs/quickstart/harvest.py \
    --config.model=MODEL --config.hooks="($hooks)" --out=runs/transcoder/store
  sae-jax train --config=configs/transcoder.py --out=runs/transcoder/run

With `sae.skip=False` latents alone must give the output.
"""

from sae_jax import sae, stream
from sae_jax.train import config, optimizer


def get_config():
  return config.TrainConfig(
    store="runs/transcoder/store",
    hook="blocks.9.hook_resid_mid",
    target="blocks.9.hook_mlp_out",
    sae=sae.SaeConfig(latents=4608, k=32, skip=True),
    optimizer=optimizer.OptimizerConfig(
      learning_rate=1e-3, warmup_steps=100, decay_fraction=0.3
    ),
    stream=stream.StreamConfig(batch_size=2048, mix_chunks=32),
    steps=1000,
    held_out_rows=8192,
    eval_every=100,
    checkpoint_every=250,
  )
