# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What shards say to each other in a step of nested BatchTopK."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest

from sae_jax import mesh, sae
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib

B, D, F, K = 32, 10, 320, 23
DATA, LATENT, LEVELS = 2, 4, 2
CONFIG = sae.SaeConfig(
  latents=F,
  k=K,
  activation="batch_topk",
  prefixes=(100, F),
  aux_coefficient=0,
  matmul_dtype="float32",
)
OPTIMIZER = optimizer_lib.OptimizerConfig(learning_rate=1e-2, warmup_steps=2)
_BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_only_counts_reconstructions_and_gradients_travel(
  monkeypatch, quick_compilation
):
  monkeypatch.syspath_prepend(_BENCHMARKS)
  hlo = importlib.import_module("hlo")
  on = mesh.make(
    mesh.MeshConfig(data=DATA, latent=LATENT), jax.devices()[: DATA * LATENT]
  )
  optimizer = optimizer_lib.make_optimizer(OPTIMIZER, latents=F, steps=9)
  step = step_lib.make_train_step(CONFIG, OPTIMIZER, on, d_model=D, steps=9)
  text = (
    step.lower(
      state_lib.abstract_state(CONFIG, optimizer, D, on),
      jax.ShapeDtypeStruct((B, D), jnp.bfloat16),
    )
    .compile()
    .as_text()
  )
  rows, latents = B // DATA, F // LATENT
  counts = 15  # of every digit of the batch's threshold
  over = {LATENT: {1, D, rows * D, LEVELS * rows * D}}
  over[DATA] = {1, D, latents, latents * D}
  over[DATA * LATENT] = {1, counts}
  kinds = set()
  for c in hlo.Program(text).collectives():
    assert c.kind == "all-reduce"
    assert {array.elements for array in c.arrays} <= over[c.group], c
    kinds.add((c.group, max(array.elements for array in c.arrays)))
  assert {
    (DATA * LATENT, counts),
    (LATENT, LEVELS * rows * D),
    (DATA, latents * D),
  } <= kinds
