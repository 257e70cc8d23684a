# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The training step: the same on every mesh, sharded throughout, exact."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sae_jax import errors, mesh, sae
from sae_jax.sae import losses, treatment
from sae_jax.train import objective
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib

D, F, K, B, STEPS = 16, 64, 4, 32, 20
MESHES = [(1, 1), (8, 1), (1, 8), (2, 4)]  # (data, latent)
DEAD_AFTER = 1000
CONFIG = sae.SaeConfig(
  latents=F,
  k=K,
  aux_k=6,
  dead_after_tokens=DEAD_AFTER,
  matmul_dtype="float32",
)
OPTIMIZER = optimizer_lib.OptimizerConfig(learning_rate=1e-2, warmup_steps=2)


def _mesh(data, latent):
  return mesh.make(
    mesh.MeshConfig(data=data, latent=latent), jax.devices()[: data * latent]
  )


def _rows(count, seed=0):
  rng = np.random.default_rng(seed)
  return (3 * rng.normal(size=(count, D)) + 1).astype(np.float32)


def _init(on, config=CONFIG):
  x_ND = _rows(500)
  optimizer = optimizer_lib.make_optimizer(
    OPTIMIZER, latents=config.latents, steps=STEPS
  )
  return state_lib.init_state(
    config,
    optimizer,
    sample_ND=x_ND,
    mean_square_norm=float((x_ND**2).sum(1).mean()),
    total_variance=float(x_ND.var(0).sum()),
    seed=7,
    mesh=on,
  )


@functools.cache
def _step(data, latent, config=CONFIG):
  return step_lib.make_train_step(
    config, OPTIMIZER, _mesh(data, latent), d_model=D, steps=STEPS
  )


def _batch(on, seed=3):
  x_BD = jnp.asarray(_rows(B, seed), "bfloat16")
  return jax.device_put(x_BD, jax.NamedSharding(on, jax.P("data", None)))


def _with_dead(state, seed=5):
  """A state in which 40 % of the latents are dead."""
  dead_F = np.random.default_rng(seed).random(F) < 0.4
  tokens_F = np.where(dead_F, DEAD_AFTER, 10).astype(np.int32)
  return dataclasses.replace(
    state,
    tokens_since_fired_F=jax.device_put(
      tokens_F, state.tokens_since_fired_F.sharding
    ),
  )


def _moments(state) -> optax.ScaleByAdamState:
  return next(
    s for s in state.opt_state if isinstance(s, optax.ScaleByAdamState)
  )


@functools.cache
def _one_step(data, latent):
  on = _mesh(data, latent)
  state, scalars = _step(data, latent)(_with_dead(_init(on)), _batch(on))
  return jax.tree.map(np.asarray, (state, scalars))


@pytest.mark.parametrize(
  ("data", "latent"),
  [
    pytest.param(*m, marks=pytest.mark.slow) if m == (8, 1) else m
    for m in MESHES[1:]
  ],
)
def test_every_mesh_makes_the_same_step(data, latent):
  state, scalars = _one_step(data, latent)
  expected, expected_scalars = _one_step(1, 1)

  np.testing.assert_array_equal(
    state.tokens_since_fired_F, expected.tokens_since_fired_F
  )
  for name in ("train/l0", "train/dead_frac", "train/lr"):
    assert scalars[name] == expected_scalars[name]
  assert scalars["train/auxk"] > 0
  for name in ("train/loss", "train/fvu", "train/auxk", "train/grad_norm"):
    # Sums of B·D = 512 terms of one sign in another order: sqrt(512) · eps.
    np.testing.assert_allclose(
      scalars[name], expected_scalars[name], rtol=23 * 2**-23, err_msg=name
    )
  # mu = (1 − b1) · gradient. Terms of a gradient's sum over B rows cancel, so
  # the bound is on the largest entry: B · eps of it.
  for found, wanted in zip(
    jax.tree.leaves(_moments(state).mu),
    jax.tree.leaves(_moments(expected).mu),
    strict=True,
  ):
    atol = B * 2**-23 * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize(("data", "latent"), MESHES)
def test_the_initial_state_does_not_depend_on_the_mesh(data, latent):
  found = jax.tree.map(np.asarray, _init(_mesh(data, latent)))
  expected = jax.tree.map(np.asarray, _init(_mesh(1, 1)))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(("data", "latent"), MESHES)
def test_a_step_keeps_the_shardings_and_reuses_the_memory(data, latent):
  on = _mesh(data, latent)
  state = _init(on)
  before = jax.tree.map(lambda a: a.sharding, state)
  after, scalars = _step(data, latent)(state, _batch(on))

  assert jax.tree.map(lambda a: a.sharding, after) == before
  assert after.params.w_enc_FD.sharding.shard_shape((F, D)) == (F // latent, D)
  assert _moments(after).nu.w_dec_FD.sharding.spec == jax.P("latent", None)
  assert state.params.w_dec_FD.is_deleted()
  assert all(s.sharding.is_fully_replicated for s in scalars.values())


def test_two_runs_are_bit_equal():
  def run():
    on = _mesh(2, 4)
    state, trace = _with_dead(_init(on)), []
    for i in range(5):
      state, scalars = _step(2, 4)(state, _batch(on, i))
      trace.append(scalars)
    return jax.tree.map(np.asarray, (state, trace))

  jax.tree.map(np.testing.assert_array_equal, run(), run())


def test_decoder_rows_stay_on_the_sphere():
  on = _mesh(1, 8)
  state = _init(on)
  start_FD = np.asarray(state.params.w_dec_FD)
  state, _ = _step(1, 8)(state, _batch(on))
  mu_FD = np.asarray(_moments(state).mu.w_dec_FD)
  # Dot products of D = 16 terms: sqrt(D) · eps of the row's size.
  radial_F = np.abs((mu_FD * start_FD).sum(1))
  assert (radial_F <= 4 * 2**-23 * np.linalg.norm(mu_FD, axis=1)).all()
  assert np.abs(mu_FD).max() > 0
  for i in range(4):
    state, _ = _step(1, 8)(state, _batch(on, i))
  moved_FD = np.asarray(state.params.w_dec_FD)
  assert np.abs(moved_FD - start_FD).max() > 1e-3
  np.testing.assert_allclose(
    np.linalg.norm(moved_FD, axis=1), 1, rtol=0, atol=4 * 2**-23
  )


@pytest.mark.parametrize("kind", ["topk", "batch_topk"])
def test_the_logarithm_of_the_loss_is_made_small(kind):
  config = dataclasses.replace(CONFIG, activation=kind)
  on = _mesh(1, 1)
  before, x_BD = _with_dead(_init(on, config)), _batch(on)
  params = jax.tree.map(jnp.copy, before.params)
  dead_F = before.tokens_since_fired_F >= DEAD_AFTER
  scaled_BD = treatment.apply(before.inputs, x_BD)
  fixed = (dead_F, before.total_variance, objective.loss_spec(config, on, D))

  def log_loss(params):
    return jnp.log(losses.sae_loss(params, scaled_BD, *fixed)[0])

  expected = jax.grad(log_loss)(params)
  after, scalars = _step(1, 1, config)(before, x_BD)
  assert scalars["train/auxk"] > 0
  for name in ("w_enc_FD", "b_enc_F", "b_dec_D"):
    wanted = (1 - OPTIMIZER.b1) * np.asarray(getattr(expected, name))
    # Programs that are compiled apart round sums of up to B D terms apart.
    np.testing.assert_allclose(
      getattr(_moments(after).mu, name),
      wanted,
      rtol=0,
      atol=np.sqrt(B * D) * 2**-23 * np.abs(wanted).max(),
      err_msg=name,
    )


def test_a_loss_that_is_nothing_or_not_finite_makes_no_scale_infinite():
  for loss in (0.0, np.nan, np.inf):
    assert np.isfinite(objective.grad_scale(CONFIG, jnp.float32(loss)))
  linear = dataclasses.replace(CONFIG, log_loss=False)
  assert objective.grad_scale(linear, jnp.float32(0.25)) == 1


def test_latents_are_dead_once_they_could_have_turned():
  config = dataclasses.replace(CONFIG, dead_after_tokens=None)
  on = _mesh(1, 1)
  turn = 25  # steps of 1e-2 = entries of a row of norm 1, 1 / √16
  state = dataclasses.replace(
    _init(on, config),
    tokens_since_fired_F=turn * B - 48 + jnp.arange(F, dtype=jnp.int32),
  )
  _, scalars = _step(1, 1, config)(state, _batch(on))
  assert scalars["train/dead_frac"] == 1 - 48 / F


@pytest.mark.parametrize(
  ("steps", "turn", "tokens"),
  [
    (4000, 42, 100 * 256),  # a fortieth of the run
    (1200, 42, 42 * 256),
    (10, 1, 256),
    (10**7, 42, 10_000_000),
    (1200, 2**31 - 1, 10_000_000),
  ],
)
def test_dead_after(steps, turn, tokens):
  config = dataclasses.replace(CONFIG, dead_after_tokens=None)
  sizes = {"batch": 256, "steps": steps}
  assert objective.dead_after(config, turn=turn, **sizes) == tokens
  assert objective.dead_after(config, turn=jnp.int32(turn), **sizes) == tokens
  assert objective.dead_after(CONFIG, turn=turn, **sizes) == DEAD_AFTER


def test_counters_count_tokens():
  on = _mesh(2, 4)
  state, _ = _step(2, 4)(_init(on), _batch(on))
  assert set(np.asarray(state.tokens_since_fired_F).tolist()) == {0, B}
  state, _ = _step(2, 4)(state, _batch(on, 8))
  assert set(np.asarray(state.tokens_since_fired_F).tolist()) <= {0, B, 2 * B}


def test_counters_saturate_and_mark_the_dead():
  on = _mesh(1, 1)
  state = _init(on)
  limit = 2**31 - 1
  state = dataclasses.replace(
    state, tokens_since_fired_F=jnp.full((F,), limit - 1, jnp.int32)
  )
  state = jax.device_put(state, jax.tree.map(lambda a: a.sharding, _init(on)))
  # One batch of one repeated row: exactly its K best latents can fire.
  x_BD = jax.device_put(
    jnp.broadcast_to(_rows(1), (B, D)), jax.NamedSharding(on, jax.P("data"))
  )
  state, scalars = _step(1, 1)(state, x_BD)
  tokens_F = np.asarray(state.tokens_since_fired_F)
  assert (tokens_F == 0).sum() == scalars["train/l0"] > 0
  assert set(np.unique(tokens_F)) == {0, limit}
  assert scalars["train/dead_frac"] == 1.0

  state, scalars = _step(1, 1)(state, x_BD)
  assert np.asarray(state.tokens_since_fired_F).max() == limit
  assert scalars["train/dead_frac"] == np.float32(1 - K / F)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_row_shows_in_the_loss(bad):
  on = _mesh(1, 8)
  x_BD = _batch(on).at[11, 2].set(bad)
  _, scalars = _step(1, 8)(_init(on), x_BD)
  assert not np.isfinite(scalars["train/loss"])


@pytest.mark.parametrize(("data", "latent"), [(1, 1), (2, 4)])
def test_the_exported_dictionary_does_on_raw_rows_what_training_does(
  data, latent
):
  on = _mesh(data, latent)
  state, _ = _step(data, latent)(_init(on), _batch(on))
  scale = float(state.inputs.scale)
  exported = state_lib.to_sae(state, CONFIG, {"hook_name": "blocks.0"})
  inside = sae.make_sae(state.params, K)
  x_BD = jnp.asarray(_rows(B, 9))

  values_BK, indices_BK = sae.encode(exported, x_BD)
  inside_BK, inside_indices_BK = sae.encode(inside, x_BD * scale)
  np.testing.assert_array_equal(indices_BK, inside_indices_BK)
  # One rounding more in b / s, x · s and in each of D = 16 terms.
  np.testing.assert_allclose(
    values_BK * scale, inside_BK, rtol=0, atol=20 * 2**-23 * 10
  )
  np.testing.assert_allclose(
    sae.decode(exported, values_BK, indices_BK) * scale,
    sae.decode(inside, inside_BK, inside_indices_BK),
    rtol=0,
    atol=20 * 2**-23 * 10,
  )
  assert exported.metadata["hook_name"] == "blocks.0"


def test_abstract_state_is_the_state():
  on = _mesh(2, 4)
  optimizer = optimizer_lib.make_optimizer(OPTIMIZER, latents=F, steps=STEPS)
  abstract = state_lib.abstract_state(CONFIG, optimizer, D, on)
  state = _init(on)
  assert jax.tree.structure(abstract) == jax.tree.structure(state)
  for a, b in zip(
    jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True
  ):
    assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)


def test_meshes_that_do_not_fit_are_refused():
  odd = dataclasses.replace(CONFIG, latents=60)
  with pytest.raises(errors.InputError, match=r"latents=60.*mesh\.latent=8"):
    step_lib.make_train_step(odd, OPTIMIZER, _mesh(1, 8), d_model=D, steps=9)
  with pytest.raises(errors.InputError, match=r"latents=60.*mesh\.latent=8"):
    _init(_mesh(1, 8), odd)
  stacked = mesh.make(mesh.MeshConfig(sae=2, latent=4))
  with pytest.raises(errors.InputError, match=r"mesh\.sae=2"):
    step_lib.make_train_step(CONFIG, OPTIMIZER, stacked, d_model=D, steps=9)


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"mean_square_norm": 0.0}, "mean square norm"),
    ({"mean_square_norm": float("nan")}, "mean square norm"),
    ({"total_variance": 0.0}, "total variance"),
    ({"sample_ND": np.full((3, D), np.inf)}, "sample"),
    ({"sample_ND": np.zeros((0, D))}, "sample"),
  ],
)
def test_unusable_statistics_are_refused(changes, named):
  good = {
    "sample_ND": _rows(10),
    "mean_square_norm": 1.0,
    "total_variance": 1.0,
    "seed": 0,
    "mesh": _mesh(1, 1),
  }
  optimizer = optimizer_lib.make_optimizer(OPTIMIZER, latents=F, steps=9)
  with pytest.raises(errors.InputError, match=named):
    state_lib.init_state(CONFIG, optimizer, **{**good, **changes})
