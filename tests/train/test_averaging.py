# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The running mean of the weights: what it is of, and where it is used."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sae_jax import errors, mesh, sae
from sae_jax.train import averaging, optimizer, stack, stacked
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib

D, F, B, DECAY = 16, 32, 32, 0.8
CONFIG = sae.SaeConfig(latents=F, k=4, matmul_dtype="float32")
PLAIN = optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=2)
AVERAGED = dataclasses.replace(PLAIN, ema_decay=DECAY)


def _rows(count, seed):
  rng = np.random.default_rng(seed)
  return (3 * rng.normal(size=(count, D)) + 1).astype(np.float32)


def _state(on, config=AVERAGED, seed=0):
  x_ND = _rows(500, 1)
  return state_lib.init_state(
    CONFIG,
    optimizer.make_optimizer(config, latents=F, steps=9),
    sample_ND=x_ND,
    mean_square_norm=float((x_ND**2).sum(1).mean()),
    total_variance=float(x_ND.var(0).sum()),
    seed=seed,
    mesh=on,
  )


def _batch(on, seed):
  sharding = jax.NamedSharding(on, jax.P("data", None))
  return jax.device_put(_rows(B, seed), sharding)


@functools.cache
def _trained(on, config, steps=4):
  """The states after every step."""
  step = step_lib.make_train_step(CONFIG, config, on, d_model=D, steps=9)
  state, states = _state(on, config), []
  for i in range(steps):
    state, _ = step(state, _batch(on, i))
    states.append(jax.tree.map(np.asarray, state))
  return states


def _mesh(**axes):
  count = int(np.prod(list(axes.values()) or [1]))
  return mesh.make(mesh.MeshConfig(**axes), jax.devices()[:count])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_it_is_the_mean_of_the_weights_so_far():
  states = _trained(_mesh(data=2, latent=4), AVERAGED)
  count = len(states)
  weight_T = DECAY ** np.arange(count - 1, -1, -1)
  weight_T /= weight_T.sum()
  mean = jax.tree.map(
    lambda *a: np.tensordot(weight_T, np.float64(a), 1),
    *(state.params for state in states),
  )
  kept = states[-1].opt_state[-1]
  assert kept.count == count
  # Four steps' roundings of numbers of size 1, and of the rate.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=20 * 2**-23),
    kept.params,
    mean,
  )
  # What is looked at and exported, with rows of norm 1.
  used = state_lib.trained(jax.tree.map(jnp.asarray, states[-1])).params
  norm_F1 = np.linalg.norm(mean.w_dec_FD, axis=1, keepdims=True)
  assert (norm_F1 < 1 - 1e-4).any()
  np.testing.assert_allclose(
    used.w_dec_FD, mean.w_dec_FD / norm_F1, rtol=0, atol=20 * 2**-23
  )
  np.testing.assert_array_equal(used.w_enc_FD, kept.params.w_enc_FD)
  assert np.abs(used.w_enc_FD - states[-1].params.w_enc_FD).max() > 1e-3


@pytest.mark.slow
def test_it_changes_nothing_else():
  """The same weights and moments, to the bit; without it no such state."""
  averaged = _trained(_mesh(), AVERAGED)[-1]
  plain = _trained(_mesh(), PLAIN)[-1]
  jax.tree.map(np.testing.assert_array_equal, averaged.params, plain.params)
  jax.tree.map(
    np.testing.assert_array_equal, averaged.opt_state[:4], plain.opt_state
  )
  before = jax.tree.map(jnp.asarray, plain)
  assert state_lib.trained(before).params is before.params


@pytest.mark.slow
def test_the_chain_is_the_definition():
  """Steps do what the optax chain does, which keeps the same mean."""
  chain = optimizer.make_optimizer(AVERAGED, latents=F, steps=9)
  first, second = _trained(_mesh(), AVERAGED)[:2]
  # Of the second step's gradient only the moments are left.
  adam = [state.opt_state[1] for state in (first, second)]
  grads = jax.tree.map(
    lambda new, old: (new - AVERAGED.b1 * old) / (1 - AVERAGED.b1),
    adam[1].mu,
    adam[0].mu,
  )
  updates, state = jax.jit(chain.update)(grads, first.opt_state, first.params)
  moved = optax.apply_updates(first.params, updates)
  for found, wanted in (
    (moved, second.params),
    (state[-1].params, second.opt_state[-1].params),
  ):
    # A step of 1e-2, with the roundings of a gradient that was taken apart.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5),
      found,
      wanted,
    )


@pytest.mark.slow
def test_members_of_a_stack_have_their_own():
  """To the bit, as if alone; one that diverges keeps what it had."""
  on = _mesh()
  wild = dataclasses.replace(AVERAGED, learning_rate=1e25)
  step = stacked.make_stacked_step(
    [CONFIG] * 2, [AVERAGED, wild], on, d_model=D, steps=9
  )
  state_S = stack.stack_states((_state(on) for _ in range(2)), 2)
  for i in range(3):
    state_S, scalars_S = step(state_S, _batch(on, i))
  np.testing.assert_array_equal(scalars_S["sweep/live"], [1, 0])
  kept_S = state_S.opt_state[-1]
  np.testing.assert_array_equal(kept_S.count, [3, 1])
  alone = _trained(on, AVERAGED)[2].opt_state[-1]
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a[0], b), kept_S, alone
  )
  used_S = averaging.averaged(state_S.opt_state, state_S.params)
  assert np.isfinite(used_S.w_dec_FD).all()
  norm_F = np.linalg.norm(used_S.w_dec_FD[0], axis=-1)
  np.testing.assert_allclose(norm_F, 1, rtol=4 * 2**-23)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
  with pytest.raises(errors.InputError, match=r"optimizer\.ema_decay"):
    optimizer.OptimizerConfig(ema_decay=decay)
