# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A shard offers few candidates; where they are too few the batch is redone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import mesh, sae
from sae_jax.ops import specs
from sae_jax.sae import init, losses

SHARDS = 8
SPEC = specs.Spec(24, 16, 1024, 32)  # of 32 winners a shard has 4, give or take
LOSS = losses.LossSpec(
  k=SPEC.k, aux_k=4, aux_coefficient=0.0, implementation="cpu"
)


def _params(lift_F):
  """Of random rows; `lift_F` is added to the encoder's bias."""
  inputs = specs.make_inputs(SPEC)
  params = sae.Params(
    w_enc_FD=jnp.asarray(inputs.w_enc_FD, "float32"),
    w_dec_FD=jnp.asarray(inputs.w_dec_FD, "float32"),
    b_enc_F=jnp.asarray(inputs.b_enc_F + lift_F, "float32"),
    b_dec_D=jnp.asarray(inputs.b_dec_D, "float32"),
  )
  return params, jnp.asarray(inputs.x_BD, "float32")


def _evaluate(params, x_BD, shards):
  on = mesh.make(mesh.MeshConfig(latent=shards), jax.devices()[:shards])
  spec = dataclasses.replace(LOSS, latent_axis="latent" if shards > 1 else None)
  by_params = jax.tree.map(lambda s: s.spec, init.params_sharding(on))

  def measure(params, x_BD):
    dead_F = jnp.zeros((params.latents,), bool)
    loss, report, grads = losses.loss_and_grads(
      params, x_BD, dead_F, jnp.float32(1), spec
    )
    return loss, report.redone, report.fired_F, grads

  run = jax.shard_map(
    measure,
    mesh=on,
    in_specs=(by_params, jax.P()),
    out_specs=(jax.P(), jax.P(), jax.P("latent"), by_params),
    check_vma=False,
  )
  return jax.jit(run)(params, x_BD)


@pytest.mark.parametrize("crowded", [False, True])
def test_what_few_candidates_cannot_certify_is_done_again(crowded):
  lift_F = np.zeros(SPEC.latents)
  if crowded:
    lift_F[: SPEC.latents // SHARDS] = 100  # all winners on the first shard
  params, x_BD = _params(lift_F)
  loss, redone, fired_F, grads = _evaluate(params, x_BD, SHARDS)
  expected, _, expected_fired_F, expected_grads = _evaluate(params, x_BD, 1)
  assert redone == crowded
  np.testing.assert_array_equal(fired_F, expected_fired_F)
  # Sums of K = 32 and B = 24 terms in another order, of values around 100.
  np.testing.assert_allclose(loss, expected, rtol=64 * 2**-23)
  for found, wanted in zip(
    jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True
  ):
    size = float(jnp.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=64 * 2**-23 * size)


def test_a_nan_is_not_lost_between_shards():
  params, x_BD = _params(np.zeros(SPEC.latents))
  loss, redone, *_ = _evaluate(params, x_BD.at[3, 1].set(jnp.nan), SHARDS)
  assert redone == 1
  assert np.isnan(loss)
