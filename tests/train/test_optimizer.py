# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The schedule, the projections and the checks of the optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, sae
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


def test_the_default_rate_falls_with_the_root_of_the_width():
  config = optimizer_lib.OptimizerConfig()
  rate = optimizer_lib.resolve_learning_rate
  assert rate(config, 2**14) == pytest.approx(2e-4)
  assert rate(config, 2**18) == pytest.approx(5e-5)


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
