# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""BatchTopK and nested losses against dense autograd, in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import sae
from sae_jax.sae import losses

B, D, F, K = 13, 7, 48, 5
PREFIXES = (6, 20, F)
VARIANCE = 3.7


def problem(*, batch=B, crowd=0.0):
  """Rows of different norms; `crowd`: of the first row, over the others'."""
  rng = np.random.default_rng(0)
  params = sae.Params(
    w_enc_FD=rng.normal(size=(F, D)),
    w_dec_FD=rng.normal(size=(F, D)),
    b_enc_F=rng.normal(size=F),
    b_dec_D=rng.normal(size=D),
  )
  x_BD = rng.normal(size=(batch, D)) * rng.uniform(0.5, 1.5, size=(batch, 1))
  x_BD[0] *= 1 + crowd
  return params, x_BD, rng.random(F) < 0.3


def spec(**own):
  return losses.LossSpec(
    **{
      "k": K,
      "aux_k": 4,
      "aux_coefficient": 1 / 32,
      "implementation": "cpu",
      **own,
    }
  )


def kept_BF(pre_BF, k, of):
  """Which pre-activations are among the k best, of a row or of the batch."""
  if of.activation == "topk":
    order_BF = jnp.argsort(-pre_BF, axis=1, stable=True)
    return jnp.argsort(order_BF, axis=1, stable=True) < k
  k = min(k * pre_BF.shape[0], pre_BF.size)
  return pre_BF >= jnp.sort(pre_BF.reshape(-1))[-k]


def dense_loss(params, x_BD, dead_F, of, k):
  """The definition, written densely and differentiated by autograd."""
  pre_BF = (x_BD - params.b_dec_D[None]) @ params.w_enc_FD.T
  pre_BF = pre_BF + params.b_enc_F[None]

  def error(mask_BF):
    values_BF = jnp.where(mask_BF, jax.nn.relu(pre_BF), 0)
    return values_BF @ params.w_dec_FD + params.b_dec_D[None] - x_BD

  main_BF = kept_BF(pre_BF, k, of)
  masks, weights = [main_BF], [1.0]
  if of.prefixes:
    weights = [1 / len(of.prefixes)] * len(of.prefixes)
    masks = [main_BF & (jnp.arange(F) < size)[None] for size in of.prefixes]
  if of.multi_topk:
    masks.append(kept_BF(pre_BF, 4 * k, of))
    weights.append(of.multi_topk)
  loss = sum(
    weight * jnp.sum(error(mask_BF) ** 2)
    for weight, mask_BF in zip(weights, masks, strict=True)
  )
  loss = loss / x_BD.shape[0] / VARIANCE

  main_BD = error(main_BF)
  residual_BD = jax.lax.stop_gradient(-main_BD)
  ranked_BF = jnp.where(dead_F[None], pre_BF, -jnp.inf)
  aux_BF = kept_BF(ranked_BF, of.aux_k, spec()) & dead_F[None]
  aux_BF = jnp.where(aux_BF, jax.nn.relu(pre_BF), 0)
  aux = jnp.sum((aux_BF @ params.w_dec_FD - residual_BD) ** 2)
  aux = aux / jnp.sum((residual_BD - residual_BD.mean(0)[None]) ** 2)
  active_BF = main_BF & (pre_BF > 0)
  return loss + of.aux_coefficient * aux, {
    "fvu": jnp.sum(main_BD**2) / jnp.sum((x_BD - x_BD.mean(0)[None]) ** 2),
    "l0": active_BF.sum() / x_BD.shape[0],
    "auxk": aux if of.aux_coefficient else 0.0,
    "fired_F": active_BF.any(0),
    "smallest": jnp.min(pre_BF, where=active_BF, initial=jnp.inf),
  }


_sparse = jax.jit(losses.loss_and_grads, static_argnums=4)
_dense = jax.jit(
  jax.value_and_grad(dense_loss, has_aux=True), static_argnums=(3, 4)
)

KINDS = {
  "matryoshka": {"prefixes": PREFIXES},
  "multi": {"multi_topk": 1 / 8},
  "batch": {"activation": "batch_topk"},
  "batch_matryoshka": {"activation": "batch_topk", "prefixes": PREFIXES},
  "batch_multi": {"activation": "batch_topk", "multi_topk": 1 / 8},
}


def assert_equal_dense(of, params, x_BD, dead_F, fewer=None, redone=0):
  with jax.enable_x64(True):
    params, x_BD, dead_F = jax.tree.map(jnp.asarray, (params, x_BD, dead_F))
    loss, report, grads = _sparse(
      params, x_BD, dead_F, jnp.asarray(VARIANCE), of, k=fewer
    )
    (wanted, dense), dense_grads = _dense(
      params, x_BD, dead_F, of, of.k if fewer is None else int(fewer)
    )
  assert report.redone == redone
  # Float64: sums of at most ~1e4 terms, each within ~1e-15 of its size.
  np.testing.assert_allclose(loss, wanted, rtol=1e-12)
  for name in ("fvu", "l0", "auxk"):
    np.testing.assert_allclose(getattr(report, name), dense[name], rtol=1e-11)
  np.testing.assert_array_equal(report.fired_F, dense["fired_F"])
  if of.activation == "batch_topk":
    np.testing.assert_allclose(report.smallest, dense["smallest"], rtol=1e-12)
  for name in ("w_enc_FD", "w_dec_FD", "b_enc_F", "b_dec_D"):
    grad = getattr(dense_grads, name)
    np.testing.assert_allclose(
      getattr(grads, name),
      grad,
      rtol=0,
      atol=1e-12 * max(1.0, np.abs(np.asarray(grad)).max()),
      err_msg=name,
    )
  return report


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_dense_autograd_s(kind):
  report = assert_equal_dense(spec(**KINDS[kind]), *problem())
  assert 0 < report.l0 <= K


@pytest.mark.parametrize("kind", ["multi", "batch_multi"])
def test_a_smaller_k_in_the_same_program(kind):
  of = spec(**KINDS[kind])
  assert_equal_dense(of, *problem(), fewer=np.int32(2))


@pytest.mark.parametrize("kind", ["batch", "batch_matryoshka"])
def test_a_row_that_takes_most_of_the_batch(kind):
  """Of 13 rows one may be looked at again; it then holds all there is."""
  of = spec(**{**KINDS[kind], "k": 1})
  report = assert_equal_dense(of, *problem(crowd=30.0))
  assert report.l0 == 1


def test_more_crowded_rows_than_are_looked_at_again():
  params, x_BD, dead_F = problem()
  x_BD[:4] *= 1000.0
  of = spec(**KINDS["batch_matryoshka"], k=1)
  assert_equal_dense(of, params, x_BD, dead_F, redone=1)


def test_no_latent_is_active():
  params, x_BD, dead_F = problem()
  params = dataclasses.replace(params, b_enc_F=params.b_enc_F - 1000)
  of = spec(**KINDS["batch"], aux_coefficient=0.0)
  report = assert_equal_dense(of, params, x_BD, np.zeros_like(dead_F))
  assert np.isposinf(report.smallest)
