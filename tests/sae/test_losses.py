# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The loss and its sparse gradient against dense autograd, in float64."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import sae
from sae_jax.ops import specs
from sae_jax.sae import auxk, losses

COEFFICIENT = 1 / 32


def _dense_topk(pre_BF, k, allowed_F):
  """ReLU of the k largest allowed pre-activations, zeros elsewhere."""
  ranked_BF = jnp.where(allowed_F[None], pre_BF, -jnp.inf)
  order_BF = jnp.argsort(-ranked_BF, axis=1, stable=True)
  rank_BF = jnp.argsort(order_BF, axis=1, stable=True)
  return jax.nn.relu(pre_BF) * ((rank_BF < k) & allowed_F[None])


def dense_loss(params, x_BD, dead_F, variance, k, aux_k, coefficient):
  """The definition, written densely and differentiated by autograd."""
  x_mean_D = x_BD.mean(0, keepdims=True)
  pre_BF = (x_BD - params.b_dec_D[None]) @ params.w_enc_FD.T
  pre_BF = pre_BF + params.b_enc_F[None]
  values_BF = _dense_topk(pre_BF, k, jnp.ones_like(dead_F))
  out_BD = values_BF @ params.w_dec_FD + params.b_dec_D[None]
  square_error = jnp.sum((out_BD - x_BD) ** 2)
  loss = square_error / x_BD.shape[0] / variance

  residual_BD = jax.lax.stop_gradient(x_BD - out_BD)
  aux_BF = _dense_topk(pre_BF, aux_k, dead_F)
  aux_error = jnp.sum((aux_BF @ params.w_dec_FD - residual_BD) ** 2)
  centred_BD = residual_BD - residual_BD.mean(0, keepdims=True)
  aux = aux_error / jnp.sum(centred_BD**2)
  aux = jnp.where(dead_F.any(), aux, 0.0)
  return loss + coefficient * aux, {
    "fvu": square_error / jnp.sum((x_BD - x_mean_D) ** 2),
    "l0": (values_BF > 0).sum(1).mean(),
    "auxk": aux,
    "fired_F": (values_BF > 0).any(0),
  }


SPARSE = jax.jit(
  jax.value_and_grad(losses.sae_loss, has_aux=True), static_argnums=4
)
DENSE = jax.jit(
  jax.value_and_grad(dense_loss, has_aux=True), static_argnums=(4, 5, 6)
)


def _problem(spec, dtype="float64"):
  inputs = specs.make_inputs(spec)
  params = sae.Params(
    w_enc_FD=jnp.asarray(inputs.w_enc_FD, dtype),
    w_dec_FD=jnp.asarray(inputs.w_dec_FD, dtype),
    b_enc_F=jnp.asarray(inputs.b_enc_F, dtype),
    b_dec_D=jnp.asarray(inputs.b_dec_D, dtype),
  )
  return params, jnp.asarray(inputs.x_BD, dtype), inputs.dead_F


def _spec(k, aux_k, implementation="cpu", coefficient=COEFFICIENT, **more):
  return losses.LossSpec(
    k=k,
    aux_k=aux_k,
    aux_coefficient=coefficient,
    implementation=implementation,
    **more,
  )


def _assert_equal_dense(params, x_BD, dead_F, spec):
  variance = jnp.asarray(3.7, x_BD.dtype)
  (loss, report), grads = SPARSE(
    params, x_BD, jnp.asarray(dead_F), variance, spec
  )
  (expected, dense), dense_grads = DENSE(
    params,
    x_BD,
    jnp.asarray(dead_F),
    variance,
    spec.k,
    spec.aux_k,
    spec.aux_coefficient,
  )
  # Float64: sums of at most ~1e4 terms, each within ~1e-15 of its size; the
  # largest gradients are those of "one_latent_wins", around 1e3.
  size = max(1.0, *(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)))
  tolerance = 1e-12 * size
  np.testing.assert_allclose(loss, expected, rtol=1e-12)
  for name in ("fvu", "l0", "auxk"):
    np.testing.assert_allclose(getattr(report, name), dense[name], rtol=1e-11)
  np.testing.assert_array_equal(report.fired_F, dense["fired_F"])
  for name in ("w_enc_FD", "w_dec_FD", "b_enc_F", "b_dec_D"):
    found = getattr(grads, name)
    np.testing.assert_allclose(
      found,
      getattr(dense_grads, name),
      rtol=0,
      atol=tolerance,
      err_msg=name,
    )
  return report, grads


@pytest.mark.parametrize(
  ("name", "implementation"),
  [
    ("odd", "cpu"),
    ("k_is_f", "cpu"),
    ("ties", "cpu"),
    ("duplicates", "cpu"),
    ("negative", "cpu"),
    ("one_latent_wins", "cpu"),
    ("many_rows", "cpu"),
    ("odd", "xla"),
    ("one_latent_wins", "xla"),
  ],
)
def test_gradient_is_dense_autograd_s(name, implementation):
  spec = specs.TEST[name]
  with jax.enable_x64(True):
    params, x_BD, dead_F = _problem(spec)
    # 40 % of the latents are dead: more than aux_k, so AuxK selects too.
    aux_k = max(1, min(6, spec.latents // 4))
    _assert_equal_dense(
      params, x_BD, dead_F, _spec(spec.k, aux_k, implementation)
    )


@pytest.mark.parametrize("dead", [0, 1, 7, 8, 255, 256, 257, 1023, 1024])
def test_any_number_of_dead_latents(dead):
  spec = specs.TEST["two_level"]
  assert auxk.capacities(spec.latents) == (256, 1024)
  dead_F = np.zeros(spec.latents, bool)
  dead_F[np.random.default_rng(dead).permutation(spec.latents)[:dead]] = True
  with jax.enable_x64(True):
    params, x_BD, _ = _problem(spec)
    report, grads = _assert_equal_dense(params, x_BD, dead_F, _spec(8, 8))
  if not dead:
    assert float(report.auxk) == 0
  else:
    assert float(report.auxk) > 0
    silent_F = dead_F & ~np.asarray(report.fired_F)
    # With nearly all latents dead, AuxK chooses what the main term chose.
    if 7 <= dead <= 257:
      # AuxK alone reaches these, and it reaches both matrices and the bias.
      for grad in (grads.w_enc_FD, grads.w_dec_FD, grads.b_enc_F):
        assert np.abs(np.asarray(grad)[silent_F]).max() > 0


def test_auxk_selects_ties_by_latent():
  spec = specs.TEST["ties"]
  with jax.enable_x64(True):
    params, x_BD, dead_F = _problem(spec)
    _assert_equal_dense(params, x_BD, dead_F, _spec(spec.k, 17))


def test_auxk_is_zero_where_the_residual_has_no_variance():
  spec = specs.TEST["odd"]
  params, x_BD, dead_F = _problem(spec, "float32")
  x_BD = jnp.broadcast_to(x_BD[:1], x_BD.shape)
  # x̂ = b_dec = 0: the residual is the same vector in every row.
  params = dataclasses.replace(
    params,
    b_enc_F=jnp.full_like(params.b_enc_F, -1e3),
    b_dec_D=jnp.zeros_like(params.b_dec_D),
  )
  x_BD = jnp.round(x_BD * 4) / 4  # sums of 13 equal rows divide exactly
  x_BD = x_BD[:8]
  (loss, report), grads = SPARSE(
    params, x_BD, jnp.asarray(dead_F), jnp.float32(1), _spec(3, 2)
  )
  assert report.auxk == 0
  assert np.isfinite(loss)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("where", ["x", "w_enc_FD", "w_dec_FD", "b_enc_F"])
@pytest.mark.parametrize("dead", [False, True])
def test_nan_reaches_the_loss(where, dead):
  spec = specs.TEST["two_level"]
  params, x_BD, dead_F = _problem(spec, "float32")
  if where == "x":
    x_BD = x_BD.at[5, 3].set(jnp.nan)
  else:
    # A latent that is active on some row.
    latent = int(sae.encode(sae.make_sae(params, spec.k), x_BD[:1])[1][0, 0])
    array = getattr(params, where)
    params = dataclasses.replace(
      params, **{where: array.at[latent].set(jnp.nan)}
    )
  (loss, _), _ = SPARSE(
    params, x_BD, jnp.asarray(dead_F & dead), jnp.float32(1), _spec(8, 8)
  )
  assert np.isnan(loss)


def test_x_is_data():
  spec = specs.TEST["odd"]
  params, x_BD, dead_F = _problem(spec, "float32")
  grad_BD, _ = jax.jit(
    jax.grad(losses.sae_loss, argnums=1, has_aux=True), static_argnums=4
  )(params, x_BD, jnp.asarray(dead_F), jnp.float32(1), _spec(3, 2))
  np.testing.assert_array_equal(grad_BD, 0)


def test_bfloat16_products_stay_close():
  spec = specs.TEST["two_level"]
  params, x_BD, dead_F = _problem(spec, "float32")
  arguments = (params, x_BD, jnp.asarray(dead_F), jnp.float32(1))
  (exact, _), _ = SPARSE(*arguments, _spec(8, 8))
  (rounded, _), grads = SPARSE(*arguments, _spec(8, 8, matmul_dtype="bfloat16"))
  # Pre-activations move by 2**-8 of their size, the loss by about as much.
  np.testing.assert_allclose(rounded, exact, rtol=2**-7)
  assert rounded != exact
  assert grads.w_enc_FD.dtype == jnp.float32


def test_capacities_cover_everything():
  for latents in (1, 5, 256, 257, 4096, 16384, 100_003):
    sizes = auxk.capacities(latents)
    assert sizes[-1] == latents
    assert sizes[0] <= 256
    for small, large in itertools.pairwise(sizes):
      assert small < large <= 4 * small
