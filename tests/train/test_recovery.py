# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Training finds the dictionary that synthetic sparse data was made from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import mesh, sae
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib


def _data(rows, d_model, atoms, active, seed):
  """Rows that are sums of `active` unit atoms, plus an offset and noise."""
  rng = np.random.default_rng(seed)
  atoms_AD = rng.normal(size=(atoms, d_model))
  atoms_AD /= np.linalg.norm(atoms_AD, axis=1, keepdims=True)
  offset_D = rng.normal(size=d_model)
  chosen_BA = np.argsort(rng.random((rows, atoms)), axis=1)[:, :active]
  weights_BA = rng.uniform(0.5, 1.5, size=(rows, active))
  x_BD = np.einsum("ba,bad->bd", weights_BA, atoms_AD[chosen_BA]) + offset_D
  x_BD += 0.01 * rng.normal(size=x_BD.shape)
  return x_BD.astype(np.float32), atoms_AD


def _train(x_ND, config, *, batch, steps, learning_rate):
  on = mesh.single()
  optimizer_config = optimizer_lib.OptimizerConfig(
    learning_rate=learning_rate, warmup_steps=20
  )
  state = state_lib.init_state(
    config,
    optimizer_lib.make_optimizer(
      optimizer_config, latents=config.latents, steps=steps
    ),
    sample_ND=x_ND[:4096],
    mean_square_norm=float((x_ND**2).sum(1).mean()),
    total_variance=float(x_ND.var(0).sum()),
    seed=0,
    mesh=on,
  )
  train_step = step_lib.make_train_step(
    config, optimizer_config, on, d_model=x_ND.shape[1], steps=steps
  )
  sharding = jax.NamedSharding(on, jax.P("data", None))
  rng = np.random.default_rng(1)
  for _ in range(steps):
    rows = rng.integers(0, len(x_ND), size=batch)
    x_BD = jax.device_put(jnp.asarray(x_ND[rows], "bfloat16"), sharding)
    state, scalars = train_step(state, x_BD)
  return state, jax.tree.map(float, scalars)


def _recovery(state, atoms_AD):
  """Mean over true atoms of the best cosine with a decoder row."""
  return (atoms_AD @ np.asarray(state.params.w_dec_FD).T).max(1).mean()


def test_a_small_dictionary_is_recovered():
  x_ND, atoms_AD = _data(8192, d_model=16, atoms=24, active=2, seed=0)
  config = sae.SaeConfig(latents=48, k=2, dead_after_tokens=5_000)
  state, scalars = _train(
    x_ND, config, batch=256, steps=400, learning_rate=1e-2
  )
  assert _recovery(state, atoms_AD) >= 0.95
  assert scalars["train/fvu"] < 0.1
  # Random rows are nowhere near, so the figure above was learnt.
  random_FD = np.random.default_rng(9).normal(size=(48, 16))
  random_FD /= np.linalg.norm(random_FD, axis=1, keepdims=True)
  assert (atoms_AD @ random_FD.T).max(1).mean() < 0.8


@pytest.mark.slow
def test_an_overcomplete_dictionary_is_recovered():
  x_ND, atoms_AD = _data(65_536, d_model=32, atoms=64, active=3, seed=0)
  config = sae.SaeConfig(latents=128, k=3, dead_after_tokens=50_000)
  state, scalars = _train(
    x_ND, config, batch=512, steps=1500, learning_rate=5e-3
  )
  assert _recovery(state, atoms_AD) >= 0.95
  assert scalars["train/dead_frac"] < 0.5
