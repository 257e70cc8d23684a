# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Ours and the peers' trainers behind one interface, for quality.py.

A learner takes batches of raw rows one after another, as its library's own
training loop would, and gives the dictionary that the library would save, in
our arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np
import quality_peers
import quality_task

from sae_jax import mesh, sae
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib


class Ours:
  """`sae_jax`'s step on one device."""

  def __init__(self, task: quality_task.Task, data: quality_task.Data):
    kind = {} if task.activation == "topk" else {"activation": task.activation}
    self._config = sae.SaeConfig(latents=task.latents, k=task.k, **kind)
    schedule = {} if task.rate is None else _schedule(task)
    optimizer_config = optimizer_lib.OptimizerConfig(**schedule)
    on = mesh.single()
    self._state = state_lib.init_state(
      self._config,
      optimizer_lib.make_optimizer(
        optimizer_config, latents=task.latents, steps=task.steps
      ),
      sample_ND=data.sample_ND,
      mean_square_norm=data.mean_square_norm,
      total_variance=data.total_variance,
      seed=task.seed,
      mesh=on,
    )
    self._step = step_lib.make_train_step(
      self._config,
      optimizer_config,
      on,
      d_model=task.d_model,
      steps=task.steps,
    )

  def step(self, x_BD):
    self._state, scalars = self._step(self._state, x_BD)
    jax.block_until_ready((self._state, scalars))

  def dictionary(self):
    return state_lib.to_sae(self._state, self._config)

  def reconstruct(self, x_BD):
    finished = self.dictionary()
    x_BD = jnp.asarray(x_BD)
    return np.asarray(sae.decode(finished, *sae.encode(finished, x_BD)))


def _schedule(task):
  return {"learning_rate": task.rate, "warmup_steps": task.warmup}


LEARNERS = {
  "sae_jax": Ours,
  "sparsify-signum": lambda task, data: quality_peers.Sparsify(
    task, data, "signum"
  ),
  "sparsify-adam": lambda task, data: quality_peers.Sparsify(
    task, data, "adam"
  ),
  "dictionary_learning": quality_peers.DictionaryLearning,
  "sae_lens": quality_peers.SaeLens,
}
# The distributions that they come from.
PACKAGES = {
  "sae_jax": "sae-jax",
  "sparsify-signum": "eai-sparsify",
  "sparsify-adam": "eai-sparsify",
  "dictionary_learning": "dictionary-learning",
  "sae_lens": "sae-lens",
}


def has(system: str, activation: str) -> bool:
  """Whether the library has this kind of dictionary."""
  return activation == "topk" or not system.startswith("sparsify")
