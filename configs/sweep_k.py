# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A frontier on the quickstart's store: five K, two learning rates for each.

Ten dictionaries of one hook, trained by one compiled step on one reading of
the rows; a step takes about as long as ten of the quickstart's. `sae-jax
report` draws FVU against L0. Where there are several devices,
--config.mesh.sae=2 (or 5, or 10) divides the dictionaries among them.
"""

from sae_jax import sae, stream
from sae_jax.train import config, optimizer


def get_config():
  return config.TrainConfig(
    store="runs/quickstart/store",
    hook="blocks.9.hook_resid_post",
    sae=sae.SaeConfig(latents=4608, k=32, dead_after_tokens=200_000),
    sweep=tuple(
      config.MemberConfig(k=k, learning_rate=rate)
      for k in (8, 16, 32, 64, 128)
      for rate in (5e-4, 1e-3)
    ),
    optimizer=optimizer.OptimizerConfig(warmup_steps=100, decay_fraction=0.3),
    stream=stream.StreamConfig(batch_size=2048, mix_chunks=32),
    steps=1000,
    held_out_rows=8192,
    eval_every=100,
    checkpoint_every=250,
  )
