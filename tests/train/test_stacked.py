# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A stack of dictionaries: each member is what its own step would make it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, mesh, sae
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import stack, stacked
from sae_jax.train import state as state_lib

D, F, B, STEPS = 16, 64, 32, 20
DEAD_AFTER = 1000
BASE = sae.SaeConfig(
  latents=F,
  k=4,
  aux_k=6,
  dead_after_tokens=DEAD_AFTER,
  matmul_dtype="float32",
)
# k, AuxK's coefficient, learning rate
MEMBERS = [(4, 1 / 8, 1e-2), (9, 0.0, 3e-3)]
CONFIGS = [
  dataclasses.replace(BASE, k=k, aux_coefficient=c) for k, c, _ in MEMBERS
]
OPTIMIZERS = [
  optimizer_lib.OptimizerConfig(learning_rate=rate, warmup_steps=2)
  for *_, rate in MEMBERS
]


def _mesh(of_sae, data, latent):
  return mesh.make(
    mesh.MeshConfig(sae=of_sae, data=data, latent=latent),
    jax.devices()[: of_sae * data * latent],
  )


def _rows(count, seed=0):
  rng = np.random.default_rng(seed)
  return (3 * rng.normal(size=(count, D)) + 1).astype(np.float32)


@functools.cache
def _initial(member, on):
  """A state of seed `member`, in which 40 % of the latents are dead."""
  x_ND = _rows(500)
  state = state_lib.init_state(
    CONFIGS[member],
    optimizer_lib.make_optimizer(OPTIMIZERS[member], latents=F, steps=STEPS),
    sample_ND=x_ND,
    mean_square_norm=float((x_ND**2).sum(1).mean()),
    total_variance=float(x_ND.var(0).sum()),
    seed=member,
    mesh=on,
  )
  dead_F = np.random.default_rng(member).random(F) < 0.4
  tokens_F = np.where(dead_F, DEAD_AFTER, 10).astype(np.int32)
  return dataclasses.replace(
    state,
    tokens_since_fired_F=jax.device_put(
      tokens_F, state.tokens_since_fired_F.sharding
    ),
  )


def _batch(on, seed):
  """Of two hooks: member i is trained on hook 1 - i."""
  sharding = jax.NamedSharding(on, jax.P("data", None))
  return tuple(
    jax.device_put(jnp.asarray(_rows(B, 2 * seed + i), "bfloat16"), sharding)
    for i in range(2)
  )


def _stack(on):
  return stack.stack_states((_initial(i, on) for i in range(2)), 2)


@functools.cache
def _stacked_step(on):
  return stacked.make_stacked_step(
    CONFIGS, OPTIMIZERS, on, d_model=D, steps=STEPS, hooks=(1, 0)
  )


@functools.cache
def _together(on, count):
  """The members' states after `count` steps, and every step's scalars."""
  state_S, trace = _stack(on), []
  for i in range(count):
    state_S, scalars_S = _stacked_step(on)(state_S, _batch(on, i))
    trace.append(jax.tree.map(np.asarray, scalars_S))
  states = [stack.member(state_S, i) for i in range(2)]
  return jax.tree.map(np.asarray, states), trace


def test_each_member_has_the_wait_of_its_own_rate():
  on = _mesh(1, 1, 1)
  step = stacked.make_stacked_step(
    [dataclasses.replace(c, dead_after_tokens=None) for c in CONFIGS],
    OPTIMIZERS,
    on,
    d_model=D,
    steps=STEPS,
    hooks=(1, 0),
  )
  state_S = _stack(on)
  # 25 and 84 steps of 32 tokens.
  tokens_SF = np.stack([n * B - 24 + np.arange(F) for n in (25, 84)])
  state_S = dataclasses.replace(
    state_S,
    tokens_since_fired_F=jax.device_put(
      tokens_SF.astype(np.int32), state_S.tokens_since_fired_F.sharding
    ),
  )
  _, scalars_S = step(state_S, _batch(on, 0))
  np.testing.assert_array_equal(scalars_S["train/dead_frac"], 1 - 24 / F)


def test_a_mesh_of_stacks_makes_the_same_first_step():
  states, (scalars_S,) = _together(_mesh(2, 2, 2), 1)
  expected, (expected_S,) = _together(_mesh(1, 1, 1), 1)
  for name in ("train/l0", "train/dead_frac"):
    np.testing.assert_array_equal(scalars_S[name], expected_S[name], name)
  for name in ("train/loss", "train/fvu", "train/auxk", "train/grad_norm"):
    # Sums of B·D = 512 terms of one sign in another order: sqrt(512) · eps.
    np.testing.assert_allclose(
      scalars_S[name], expected_S[name], rtol=23 * 2**-23, err_msg=name
    )
  np.testing.assert_allclose(
    scalars_S["train/lr"], expected_S["train/lr"], rtol=2**-23
  )
  for found, wanted in zip(states, expected, strict=True):
    np.testing.assert_array_equal(
      found.tokens_since_fired_F, wanted.tokens_since_fired_F
    )
    # mu = (1 − b1) · gradient, a sum over B rows whose terms cancel: B · eps of
    # the largest entry, as for one dictionary.
    for a, b in zip(
      jax.tree.leaves(found.opt_state[1].mu),
      jax.tree.leaves(wanted.opt_state[1].mu),
      strict=True,
    ):
      np.testing.assert_allclose(
        a, b, rtol=0, atol=B * 2**-23 * np.abs(b).max()
      )


def _with_weight(state_S, member, value):
  """The stack with one of a member's encoder weights set."""
  w_enc_FD = state_S.params.w_enc_FD
  changed_FD = np.array(w_enc_FD)
  changed_FD[member, 5, 3] = value
  params = dataclasses.replace(
    state_S.params, w_enc_FD=jax.device_put(changed_FD, w_enc_FD.sharding)
  )
  return dataclasses.replace(state_S, params=params)


def _bits(state):
  return [np.array(a).tobytes() for a in jax.tree.leaves(state)]


@pytest.mark.parametrize(
  ("shape", "value"), [((1, 1, 1), np.nan), ((2, 2, 2), 1e30)]
)
def test_a_member_that_diverges_stays_as_it_was(shape, value):
  """Its loss is NaN, or infinite, at the first step only: it is not revived."""
  on = _mesh(*shape)
  state_S = _with_weight(_stack(on), 1, value)
  before = _bits(stack.member(state_S, 1))
  state_S, scalars_S = _stacked_step(on)(state_S, _batch(on, 0))
  expected, (expected_S,) = _together(on, 1)
  np.testing.assert_array_equal(scalars_S["sweep/live"], [1, 0])
  assert not np.isfinite(scalars_S["train/loss"][1])
  for name, values_S in scalars_S.items():
    assert values_S[0] == expected_S[name][0], name
  jax.tree.map(
    np.testing.assert_array_equal, stack.member(state_S, 0), expected[0]
  )
  assert _bits(stack.member(state_S, 1)) == before

  state_S = _with_weight(state_S, 1, 0.5)
  before = _bits(stack.member(state_S, 1))
  state_S, scalars_S = _stacked_step(on)(state_S, _batch(on, 1))
  assert np.isfinite(scalars_S["train/loss"]).all()
  np.testing.assert_array_equal(scalars_S["sweep/live"], [1, 0])
  assert _bits(stack.member(state_S, 1)) == before
  np.testing.assert_array_equal(state_S.step, [2, 0])


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)])
def test_a_gradient_that_is_not_finite_freezes_too(shape):
  """A value of 1e18: its square is finite, the norm's square is its fourth."""
  on = _mesh(*shape)
  state_S = _stack(on)
  b_enc_SF = np.array(state_S.params.b_enc_F)
  b_enc_SF[0, 7] = 1e18
  params = dataclasses.replace(
    state_S.params,
    b_enc_F=jax.device_put(b_enc_SF, state_S.params.b_enc_F.sharding),
  )
  state_S = dataclasses.replace(state_S, params=params)
  before = _bits(stack.member(state_S, 0))
  state_S, scalars_S = _stacked_step(on)(state_S, _batch(on, 0))
  assert np.isfinite(scalars_S["train/loss"][0])
  assert not np.isfinite(scalars_S["train/grad_norm"][0])
  np.testing.assert_array_equal(scalars_S["sweep/live"], [0, 1])
  assert _bits(stack.member(state_S, 0)) == before


def test_stacking_and_taking_out_are_inverse_and_keep_their_places():
  on = _mesh(2, 2, 2)
  state_S = _stack(on)
  shardings = stack.state_sharding(CONFIGS[0], OPTIMIZERS[0], D, on)
  placed = jax.tree.map(lambda a: a.sharding, state_S)
  assert placed.params == shardings.params
  assert placed.opt_state == shardings.opt_state
  assert placed.inputs.scale == shardings.inputs  # of all that is in it
  assert state_S.params.w_enc_FD.sharding.shard_shape((2, F, D)) == (
    1,
    F // 2,
    D,
  )
  for i in range(2):
    taken = stack.member(state_S, i)
    jax.tree.map(np.testing.assert_array_equal, taken, _initial(i, on))
    for a, b in zip(
      jax.tree.leaves(taken), jax.tree.leaves(_initial(i, on)), strict=True
    ):
      assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
  before = state_S.params.w_dec_FD
  after_S, scalars_S = _stacked_step(on)(state_S, _batch(on, 0))
  assert jax.tree.map(lambda a: a.sharding, after_S) == placed
  assert before.is_deleted()
  assert scalars_S["train/loss"].shape == (2,)
  assert scalars_S["train/loss"].sharding.is_fully_replicated


def test_what_cannot_be_stacked_is_refused():
  def make(configs, optimizers, on):
    stacked.make_stacked_step(configs, optimizers, on, d_model=D, steps=STEPS)

  one = _mesh(1, 1, 1)
  wide = dataclasses.replace(BASE, latents=2 * F)
  with pytest.raises(errors.InputError, match=r"sae\.latents is 64 .* 128"):
    make([BASE, wide], OPTIMIZERS[:2], one)
  slow = dataclasses.replace(OPTIMIZERS[0], warmup_steps=7)
  with pytest.raises(errors.InputError, match=r"optimizer\.warmup_steps is 2"):
    make([BASE, BASE], [OPTIMIZERS[0], slow], one)
  with pytest.raises(errors.InputError, match=r"2 dictionaries and 1 opt"):
    make([BASE, BASE], OPTIMIZERS[:1], one)
  with pytest.raises(errors.InputError, match=r"3 dictionaries .*mesh\.sae=2"):
    make([BASE] * 3, OPTIMIZERS[:1] * 3, _mesh(2, 1, 1))
  with pytest.raises(errors.InputError, match="1 states for a stack of 2"):
    stack.stack_states([_initial(0, one)], 2)
