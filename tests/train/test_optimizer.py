# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The schedule, the projections and the checks of the optimizer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sae_jax import errors, mesh, sae
from sae_jax.sae import init
from sae_jax.train import one_pass
from sae_jax.train import optimizer as optimizer_lib


def _rates(steps, latents=2**14, **config):
  schedule = optimizer_lib.schedule(
    optimizer_lib.OptimizerConfig(**config), latents=latents, steps=steps
  )
  return np.asarray(jax.vmap(schedule)(jnp.arange(steps)))


def test_the_rate_rises_holds_and_falls():
  rates = _rates(100, learning_rate=1.0, warmup_steps=10, decay_fraction=0.2)
  np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=1e-6)
  np.testing.assert_array_equal(rates[10:80], 1)
  np.testing.assert_allclose(rates[80:], np.arange(20, 0, -1) / 20, rtol=1e-6)


def test_warm_up_and_decay_may_be_off_or_overlap():
  flat = _rates(5, learning_rate=0.5, warmup_steps=0, decay_fraction=0)
  np.testing.assert_array_equal(flat, 0.5)
  overlapping = _rates(10, learning_rate=1.0, warmup_steps=10, decay_fraction=1)
  np.testing.assert_allclose(
    overlapping, np.array([1, 2, 3, 4, 5, 5, 4, 3, 2, 1]) / 10, rtol=1e-6
  )


def test_the_default_warm_up_is_a_part_of_the_run():
  config = optimizer_lib.OptimizerConfig()
  assert optimizer_lib.resolve_warmup(config, 1200) == 60
  assert optimizer_lib.resolve_warmup(config, 10) == 0
  assert optimizer_lib.resolve_warmup(config, 10**6) == 1000


def test_the_default_rate_falls_with_the_root_of_the_width():
  config = optimizer_lib.OptimizerConfig()
  rate = optimizer_lib.resolve_learning_rate
  assert rate(config, 2**14, 10**5) == pytest.approx(2e-4)
  assert rate(config, 2**18, 10**5) == pytest.approx(5e-5)


@pytest.mark.parametrize(
  ("steps", "times"), [(1, 2.5), (1200, 2.5), (1500, 2), (3000, 1), (4000, 1)]
)
def test_the_default_rate_rises_in_short_runs(steps, times):
  rate = optimizer_lib.resolve_learning_rate
  default = optimizer_lib.OptimizerConfig()
  assert rate(default, 2**14, steps) == pytest.approx(times * 2e-4)
  given = optimizer_lib.OptimizerConfig(learning_rate=1e-3)
  assert rate(given, 2**14, steps) == 1e-3


def test_steps_to_turn_are_those_of_a_unit_row():
  config = optimizer_lib.OptimizerConfig(learning_rate=1e-3)
  assert optimizer_lib.steps_to_turn(config, 64, 576, 10) == 42  # 1e3 / 24


def test_one_update_is_adam_on_the_tangent_then_the_sphere():
  rng = np.random.default_rng(0)
  f, d = 6, 4
  w_FD = rng.normal(size=(f, d))
  w_FD /= np.linalg.norm(w_FD, axis=1, keepdims=True)
  g_FD = rng.normal(size=(f, d))
  params = sae.Params(
    *(jnp.asarray(a, "float32") for a in (w_FD, w_FD, np.ones(f), np.ones(d)))
  )
  grads = sae.Params(
    *(jnp.asarray(a, "float32") for a in (g_FD, g_FD, np.ones(f), np.zeros(d)))
  )
  config = optimizer_lib.OptimizerConfig(
    learning_rate=0.1, warmup_steps=0, decay_fraction=0
  )
  optimizer = optimizer_lib.make_optimizer(config, latents=f, steps=10)
  updates, _ = optimizer.update(grads, optimizer.init(params), params)

  # Adam's first step is lr · g / (|g| + eps) whatever g's size.
  tangent_FD = g_FD - (g_FD * w_FD).sum(1, keepdims=True) * w_FD
  moved_FD = w_FD - 0.1 * np.sign(tangent_FD)
  moved_FD /= np.linalg.norm(moved_FD, axis=1, keepdims=True)
  np.testing.assert_allclose(
    params.w_dec_FD + updates.w_dec_FD, moved_FD, atol=1e-5
  )
  np.testing.assert_allclose(updates.w_enc_FD, -0.1 * np.sign(g_FD), atol=1e-5)
  np.testing.assert_allclose(updates.b_enc_F, -0.1, atol=1e-5)
  np.testing.assert_array_equal(updates.b_dec_D, 0)


F, D, STEPS = 64, 16, 6
SCALE = 8.0  # of the gradient; a power of two rounds nothing
CONFIG = optimizer_lib.OptimizerConfig(
  learning_rate=1e-2, warmup_steps=2, decay_fraction=0.5
)


def _tree(seed):
  rng = np.random.default_rng(seed)
  shapes = ((F, D), (F, D), (F,), (D,))
  return sae.Params(
    *(rng.normal(size=shape).astype(np.float32) for shape in shapes)
  )


def _start(optimizer):
  params = _tree(0)
  params.w_dec_FD[:] /= np.linalg.norm(params.w_dec_FD, axis=1, keepdims=True)
  return params, jax.jit(optimizer.init)(params)


@functools.cache
def _chain():
  optimizer = optimizer_lib.make_optimizer(CONFIG, latents=F, steps=STEPS)

  @jax.jit
  def step(params, state, grads):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  return step


@functools.cache
def _run():
  """(params, state) of the chain before every step, and after the last."""
  optimizer = optimizer_lib.make_optimizer(CONFIG, latents=F, steps=STEPS)
  run = [_start(optimizer)]
  for i in range(STEPS):
    run.append(_chain()(*run[-1], _tree(i + 1)))
  return run


@functools.cache
def _apply(data, latent, implementation=None):
  on = mesh.make(
    mesh.MeshConfig(data=data, latent=latent), jax.devices()[: data * latent]
  )
  apply = one_pass.make_apply(
    CONFIG, on, latents=F, steps=STEPS, implementation=implementation
  )
  rows, replicated = init.params_sharding(on), jax.NamedSharding(on, jax.P())
  optimizer = optimizer_lib.make_optimizer(CONFIG, latents=F, steps=STEPS)
  state = optimizer_lib.state_sharding(optimizer, _tree(0), rows, replicated)
  by_rows, by_state = jax.tree.map(lambda s: s.spec, (rows, state))

  def whole(*arrays):
    params, state, square = apply(*arrays, scale=SCALE)
    return params, state, jnp.sqrt(jax.lax.psum(square, "latent"))

  return jax.jit(
    jax.shard_map(
      whole,
      mesh=on,
      in_specs=(by_rows, by_state, by_rows),
      out_specs=(by_rows, by_state, jax.P()),
      check_vma=False,
    )
  )


@pytest.mark.parametrize(
  ("data", "latent", "implementation"),
  [(1, 1, "reference"), (1, 1, None), (2, 4, None), (1, 8, "pallas_tpu")],
)
def test_one_pass_is_the_chain(data, latent, implementation):
  apply = _apply(data, latent, implementation)
  run = _run()
  for i in range(STEPS):
    params, state = run[i]
    grads = _tree(i + 1)
    if i == 3:  # a latent that did not fire
      grads.w_enc_FD[5], grads.w_dec_FD[5], grads.b_enc_F[5] = 0, 0, 0
    scaled = jax.tree.map(lambda g: SCALE * g, grads)
    expected = _chain()(params, state, scaled)
    *found, norm = apply(grads, state, params)

    assert jax.tree.structure(found) == jax.tree.structure(list(expected))
    # Sums of D = 16 terms in another order, relative to entries of up to 4 and
    # to roots of nu of down to 1/30 of that; then rounded to rows of norm 1.
    for f, e in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
      assert (f.shape, f.dtype) == (e.shape, e.dtype)
      np.testing.assert_allclose(
        f, e, rtol=4 * 2**-23, atol=16 * 2**-23, err_msg=str(i)
      )
    total = sum((np.float64(g) ** 2).sum() for g in jax.tree.leaves(grads))
    # 2 · 1024 + 80 terms of one sign: sqrt(n) · eps.
    np.testing.assert_allclose(norm, np.sqrt(total), rtol=46 * 2**-23)


def test_a_gradient_that_is_not_finite_shows():
  params, state = _run()[2]
  grads = _tree(9)
  grads.w_dec_FD[7, 3] = np.nan
  after, state, norm = _apply(2, 4)(grads, state, params)
  assert np.isnan(norm)
  assert np.isnan(after.w_dec_FD[7]).all()
  assert np.isfinite(after.w_enc_FD).all()
  assert np.isfinite(np.delete(after.w_dec_FD, 7, axis=0)).all()


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("learning_rate", 0.0),
    ("learning_rate", float("inf")),
    ("warmup_steps", -1),
    ("decay_fraction", 1.5),
    ("b1", 1.0),
    ("b2", -0.1),
    ("eps", 0.0),
  ],
)
def test_wrong_settings_are_named(field, value):
  with pytest.raises(errors.InputError, match=rf"optimizer\.{field}={value}"):
    optimizer_lib.OptimizerConfig(**{field: value})
