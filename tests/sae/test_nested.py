# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""BatchTopK and nested losses against dense autograd, in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import mesh, sae
from sae_jax.sae import init, losses

pytestmark = pytest.mark.usefixtures("quick_compilation")

B, D, F, K = 16, 7, 48, 5
PREFIXES = (6, 20, F)
VARIANCE = 3.7
KINDS = {
  "matryoshka": {"prefixes": PREFIXES},
  "multi": {"multi_topk": 1 / 8},
  "batch_matryoshka": {"activation": "batch_topk", "prefixes": PREFIXES},
  "batch_multi": {"activation": "batch_topk", "multi_topk": 1 / 8},
}


def problem():
  """Parameters, rows of different norms, dead latents."""
  rng = np.random.default_rng(0)
  params = sae.Params(
    w_enc_FD=rng.normal(size=(F, D)),
    w_dec_FD=rng.normal(size=(F, D)),
    b_enc_F=rng.normal(size=F),
    b_dec_D=rng.normal(size=D),
  )
  x_BD = rng.normal(size=(B, D)) * rng.uniform(0.5, 1.5, size=(B, 1))
  return params, x_BD, rng.random(F) < 0.3


def spec_of(kind, **axes):
  return losses.LossSpec(
    k=K,
    aux_k=4,
    aux_coefficient=1 / 32,
    implementation="cpu",
    **KINDS[kind],
    **axes,
  )


def kept_BF(pre_BF, k, batch):
  """Which pre-activations are among the k best, of a row or of the batch."""
  if not batch:
    order_BF = jnp.argsort(-pre_BF, axis=1, stable=True)
    return jnp.argsort(order_BF, axis=1, stable=True) < k
  return pre_BF >= jnp.sort(pre_BF.reshape(-1))[-k * pre_BF.shape[0]]


def dense_loss(params, x_BD, dead_F, k, aux_coefficient, of):
  """The definition, written densely and differentiated by autograd."""
  pre_BF = (x_BD - params.b_dec_D[None]) @ params.w_enc_FD.T
  pre_BF = pre_BF + params.b_enc_F[None]
  values_BF = jax.nn.relu(pre_BF)
  batch = of.activation == "batch_topk"

  def error(mask_BF):
    out_BD = jnp.where(mask_BF, values_BF, 0) @ params.w_dec_FD
    return out_BD + params.b_dec_D[None] - x_BD

  main_BF = kept_BF(pre_BF, k, batch)
  masks, weights = [main_BF], [1.0]
  if of.prefixes:
    masks = [main_BF & (jnp.arange(F) < size)[None] for size in of.prefixes]
    weights = [1 / len(masks)] * len(masks)
  if of.multi_topk:
    masks.append(kept_BF(pre_BF, 4 * k, batch))
    weights.append(of.multi_topk)
  loss = sum(
    weight * jnp.sum(error(mask_BF) ** 2)
    for weight, mask_BF in zip(weights, masks, strict=True)
  )
  main_BD = error(main_BF)
  residual_BD = jax.lax.stop_gradient(-main_BD)
  aux_BF = kept_BF(jnp.where(dead_F[None], pre_BF, -jnp.inf), of.aux_k, False)
  aux_BF = jnp.where(aux_BF & dead_F[None], values_BF, 0)
  aux = jnp.sum((aux_BF @ params.w_dec_FD - residual_BD) ** 2)
  aux = aux / jnp.sum((residual_BD - residual_BD.mean(0)[None]) ** 2)
  active_BF = main_BF & (pre_BF > 0)
  return loss / (x_BD.shape[0] * VARIANCE) + aux_coefficient * aux, {
    "fvu": jnp.sum(main_BD**2) / jnp.sum((x_BD - x_BD.mean(0)[None]) ** 2),
    "l0": active_BF.sum() / x_BD.shape[0],
    "auxk": jnp.where(aux_coefficient > 0, aux, 0),
    "fired_F": active_BF.any(0),
    "smallest": jnp.min(pre_BF, where=active_BF, initial=jnp.inf),
  }


@functools.cache
def dense(kind):
  loss = functools.partial(dense_loss, of=spec_of(kind))
  return jax.jit(jax.value_and_grad(loss, has_aux=True))


@functools.cache
def sparse(kind, data=1, latent=1):
  """The loss and its gradient as a step computes it, on a mesh."""
  on = mesh.make(
    mesh.MeshConfig(data=data, latent=latent), jax.devices()[: data * latent]
  )
  spec = spec_of(
    kind,
    data_axis="data" if data > 1 else None,
    latent_axis="latent" if latent > 1 else None,
  )
  by_params = jax.tree.map(lambda s: s.spec, init.params_sharding(on))
  by_latent = jax.P("latent")
  report = losses.Report(
    *[jax.P()] * 5, by_latent, fvu_M=jax.P(), smallest=jax.P()
  )

  def evaluate(params, x_BD, dead_F, k, aux_coefficient):
    return losses.loss_and_grads(
      *(params, x_BD, dead_F, jnp.asarray(VARIANCE), spec),
      k=k,
      aux_coefficient=aux_coefficient,
    )

  return jax.jit(
    jax.shard_map(
      evaluate,
      mesh=on,
      in_specs=(by_params, jax.P("data"), by_latent, jax.P(), jax.P()),
      out_specs=(jax.P(), report, by_params),
      check_vma=False,
    )
  )


def assert_equal_dense(
  kind, given=None, *, k=K, aux_coefficient=1 / 32, shape=(1, 1)
):
  with jax.enable_x64(True):
    given = (
      *(problem() if given is None else given),
      np.int32(k),
      np.float64(aux_coefficient),
    )
    loss, report, grads = sparse(kind, *shape)(*given)
    (wanted, definition), dense_grads = dense(kind)(*given)
  # Float64: sums of at most ~1e4 terms, each within ~1e-15 of its size.
  np.testing.assert_allclose(loss, wanted, rtol=1e-12)
  for name in ("fvu", "l0", "auxk"):
    np.testing.assert_allclose(
      getattr(report, name), definition[name], rtol=1e-11, err_msg=name
    )
  np.testing.assert_array_equal(report.fired_F, definition["fired_F"])
  if report.smallest is not None:
    np.testing.assert_allclose(
      report.smallest, definition["smallest"], rtol=1e-12
    )
  for name in ("w_enc_FD", "w_dec_FD", "b_enc_F", "b_dec_D"):
    grad = np.asarray(getattr(dense_grads, name))
    np.testing.assert_allclose(
      getattr(grads, name),
      grad,
      rtol=0,
      atol=1e-12 * max(1.0, np.abs(grad).max()),
      err_msg=name,
    )
  return jax.tree.map(np.asarray, report)


@pytest.mark.parametrize("kind", ["multi", "batch_matryoshka"])
def test_gradient_is_dense_autograd_s(kind):
  assert 4 < assert_equal_dense(kind).l0 <= K
  assert 1 < assert_equal_dense(kind, k=2).l0 <= 2


@pytest.mark.slow
@pytest.mark.parametrize(
  ("kind", "shape"),
  [
    ("matryoshka", (1, 8)),
    ("batch_multi", (8, 1)),
    ("batch_matryoshka", (2, 4)),
  ],
)
def test_every_mesh_does_what_is_defined(kind, shape):
  report = assert_equal_dense(kind, shape=shape)
  assert 4 < report.l0 <= K and report.auxk > 0 and report.redone == 0
  params, x_BD, dead_F = problem()
  x_BD[:7] *= 1e3  # all that is active, on some shards of the rows
  report = assert_equal_dense(kind, (params, x_BD, dead_F), shape=shape)
  assert report.redone == (shape == (8, 1))  # half of all pairs on a quarter


def test_rows_that_need_more_than_most():
  """20 candidates of a row hold the usual one's pairs, not those of these."""
  params, x_BD, dead_F = problem()
  for row in range(4):
    x_BD[row] *= 1e3
    report = assert_equal_dense("batch_matryoshka", (params, x_BD, dead_F))
    assert report.redone == 0


def test_ties_are_all_kept_and_nothing_may_be_active():
  params, x_BD, dead_F = problem()
  equal = dataclasses.replace(
    params, w_enc_FD=0 * params.w_enc_FD, b_enc_F=1 + 0 * params.b_enc_F
  )
  report = assert_equal_dense("batch_matryoshka", (equal, x_BD, dead_F))
  assert report.l0 == F and report.redone == 1
  silent = dataclasses.replace(params, b_enc_F=params.b_enc_F - 1000)
  report = assert_equal_dense(
    "batch_matryoshka", (silent, x_BD, dead_F), aux_coefficient=0.0
  )
  assert report.l0 == 0 and np.isposinf(report.smallest)


@pytest.mark.parametrize("kind", ["multi", "batch_matryoshka"])
@pytest.mark.parametrize("rows", [1, 16])
def test_a_nan_reaches_the_loss(kind, rows):
  params, x_BD, dead_F = problem()
  x_BD[:rows, 3] = np.nan
  with jax.enable_x64(True):
    loss, *_ = sparse(kind, 1, 1)(
      params, x_BD, dead_F, np.int32(K), np.float64(0.0)
    )
  assert np.isnan(loss)
