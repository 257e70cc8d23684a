# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A crosscoder of two models: the persona organism before and after bad tuning.

Both models read the same tokens, the base's store first. From $PERSONA
(runs/persona if that is not set), where configs/persona/ has made the organism
and the base's store:

  sae-jax harvest --config=configs/crosscoder/harvest.py \\
    --out=$PERSONA/store-bad
  sae-jax train --config=configs/crosscoder/train.py --out=$PERSONA/crosscoder
  sae-jax diff --config=configs/crosscoder/diff.py --out=$PERSONA/whose

As Minder et al. (2025, arXiv:2504.02922): BatchTopK, k annealed from ten times
as many.
"""

import os

from sae_jax import sae, stream
from sae_jax.train import config, optimizer


def get_config():
  place = os.environ.get("PERSONA", "runs/persona")
  return config.TrainConfig(
    store=f"{place}/store",
    paired=(f"{place}/store-bad",),
    hook="blocks.1.hook_resid_post",
    sae=sae.SaeConfig(
      latents=512,
      activation="batch_topk",
      k=8,
      k_start=80,
      k_steps=200,
      dead_after_tokens=50_000,
      log_loss=False,  # as the organism's own dictionary
      matmul_dtype="float32",
    ),
    optimizer=optimizer.OptimizerConfig(
      learning_rate=2e-3, warmup_steps=20, decay_fraction=0.3
    ),
    stream=stream.StreamConfig(batch_size=512, mix_chunks=32),
    steps=1000,
    held_out_rows=8192,
    eval_every=100,
    checkpoint_every=500,
  )
