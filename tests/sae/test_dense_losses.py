# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""JumpReLU, L1-ReLU and gated losses against dense autograd, in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import mesh, sae
from sae_jax.sae import dense_kinds, dense_losses, losses

B, D, E, F = 24, 6, 10, 32
VARIANCE = 3.7
BASE = dense_losses.DenseSpec(
  activation="relu",
  sparsity=0.3,
  target_l0=None,
  bandwidth=0.4,
  pre_act=0.05,
  aux_k=3,
  aux_coefficient=1 / 32,
  implementation="cpu",
)
SPECS = {
  "relu": dataclasses.replace(
    BASE, sources=2, shared_latents=10, shared_sparsity=0.25
  ),
  "gated": dataclasses.replace(BASE, activation="gated"),
  "gated_sources": dataclasses.replace(BASE, activation="gated", sources=2),
  "jumprelu": dataclasses.replace(BASE, activation="jumprelu"),
  "jumprelu_target": dataclasses.replace(
    BASE, activation="jumprelu", target_l0=4.0, sources=2
  ),
}


@jax.custom_vjp
def _step(pre, threshold, bandwidth):
  del bandwidth
  return (pre > threshold).astype(pre.dtype)


def _step_forward(pre, threshold, bandwidth):
  return _step(pre, threshold, bandwidth), (pre, threshold, bandwidth)


def _step_backward(kept, slope):
  pre, threshold, bandwidth = kept
  near = jnp.abs((pre - threshold) / bandwidth) < 0.5
  return jnp.zeros_like(pre), -slope * near / bandwidth, None


_step.defvjp(_step_forward, _step_backward)


@jax.custom_vjp
def _jump(pre, threshold, bandwidth):
  del bandwidth
  return pre * (pre > threshold)


def _jump_forward(pre, threshold, bandwidth):
  return _jump(pre, threshold, bandwidth), (pre, threshold, bandwidth)


def _jump_backward(kept, slope):
  pre, threshold, bandwidth = kept
  near = jnp.abs((pre - threshold) / bandwidth) < 0.5
  toward = -slope * threshold / bandwidth * near
  return slope * (pre > threshold), toward, None


_jump.defvjp(_jump_forward, _jump_backward)


def dense_loss(params, x_BD, dead_F, target_BE, spec):
  """The definition, written densely and differentiated by autograd."""
  frozen = jax.lax.stop_gradient
  p = params
  centred_BD = x_BD - p.b_dec_D[None] if spec.centred else x_BD
  y_BE = x_BD if target_BE is None else target_BE
  skip_BE = 0 if p.w_skip_DE is None else x_BD @ p.w_skip_DE
  dots_BF = centred_BD @ p.w_enc_FD.T
  pre_BF = dots_BF + p.b_enc_F[None]
  norms_FM = jnp.linalg.norm(p.w_dec_FD.reshape(F, spec.sources, -1), axis=2)
  weight_F = jnp.where(
    jnp.arange(F) < spec.shared_latents, spec.shared_sparsity, 1
  )
  norm_1F = (weight_F * norms_FM.sum(1))[None]
  unit = jnp.sqrt(VARIANCE)
  extra = 0
  if spec.activation == "relu":
    values_BF = jax.nn.relu(pre_BF)
    penalty = spec.sparsity * (values_BF * norm_1F).sum(1).mean() / unit
  elif spec.activation == "gated":
    size_BF = dots_BF * jnp.exp(p.log_gain_F)[None] + p.b_mag_F[None]
    values_BF = (pre_BF > 0) * jax.nn.relu(size_BF)
    gate_BF = jax.nn.relu(pre_BF)
    penalty = spec.sparsity * (gate_BF * frozen(norm_1F)).sum(1).mean() / unit
    by_gate_BE = gate_BF @ frozen(p.w_dec_FD) + frozen(p.b_dec_D)[None]
    extra = ((by_gate_BE + frozen(skip_BE) - y_BE) ** 2).sum(1).mean()
  else:
    threshold_BF = jnp.broadcast_to(p.threshold_F[None], pre_BF.shape)
    values_BF = _jump(pre_BF, threshold_BF, spec.bandwidth)
    l0 = _step(pre_BF, threshold_BF, spec.bandwidth).sum(1).mean()
    penalty = l0 if spec.target_l0 is None else (l0 / spec.target_l0 - 1) ** 2
    gap_BF = jax.nn.relu(threshold_BF - pre_BF) * dead_F[None] * norm_1F
    penalty = spec.sparsity * penalty
    penalty = penalty + spec.pre_act * gap_BF.sum(1).mean() / unit
  out_BE = values_BF @ p.w_dec_FD + p.b_dec_D[None] + skip_BE
  square_error = ((out_BE - y_BE) ** 2).sum()
  loss = (square_error / B + extra) / VARIANCE + penalty

  rest_BE = frozen(y_BE - out_BE)
  ranked_BF = jnp.where(dead_F[None], pre_BF, -jnp.inf)
  rank_BF = jnp.argsort(jnp.argsort(-ranked_BF, axis=1), axis=1)
  aux_BF = jax.nn.relu(pre_BF) * ((rank_BF < spec.aux_k) & dead_F[None])
  spread = ((rest_BE - rest_BE.mean(0)[None]) ** 2).sum()
  aux = ((aux_BF @ p.w_dec_FD - rest_BE) ** 2).sum() / spread
  y_spread = ((y_BE - y_BE.mean(0)[None]) ** 2).sum()
  return loss + spec.aux_coefficient * aux, {
    "fvu": square_error / y_spread,
    "l0": (values_BF > 0).sum(1).mean(),
    "auxk": aux,
    "fired_F": (values_BF > 0).any(0),
  }


DENSE = jax.jit(jax.value_and_grad(dense_loss, has_aux=True), static_argnums=4)


def _problem(spec, *, transcoder=False):
  """Parameters of which nothing is at rest, rows, targets, dead latents."""
  rng = np.random.default_rng(1)
  width = E if transcoder else D
  w_dec_FD = rng.normal(size=(F, width))
  w_dec_FD /= np.linalg.norm(w_dec_FD, axis=1, keepdims=True)
  extra = {}
  if spec.activation == "jumprelu":
    extra["threshold_F"] = rng.uniform(0, 1.5, size=F)
  if spec.activation == "gated":
    extra["log_gain_F"] = 0.3 * rng.normal(size=F)
    extra["b_mag_F"] = 0.3 * rng.normal(size=F)
  if transcoder:
    extra["w_skip_DE"] = 0.2 * rng.normal(size=(D, E))
  arrays = {
    "w_enc_FD": rng.normal(size=(F, D)) / np.sqrt(D),
    "w_dec_FD": w_dec_FD,
    "b_enc_F": 0.1 * rng.normal(size=F),
    "b_dec_D": 0.3 * rng.normal(size=width),
    **extra,
  }
  params = sae.Params(**{n: jnp.asarray(a) for n, a in arrays.items()})
  x_BD = jnp.asarray(1.5 * rng.normal(size=(B, D)))
  target_BE = jnp.asarray(rng.normal(size=(B, E))) if transcoder else None
  return params, x_BD, jnp.asarray(rng.random(F) < 0.4), target_BE


def _run(spec, params, x_BD, dead_F, target_BE, data=1, latent=1):
  """`loss_and_grads` on a mesh (1, data, latent)."""
  spec = dataclasses.replace(
    spec,
    data_axis="data" if data > 1 else None,
    latent_axis="latent" if latent > 1 else None,
  )

  def call(params, x_BD, dead_F, target_BE):
    return dense_losses.loss_and_grads(
      params, x_BD, dead_F, jnp.float64(VARIANCE), spec, target_BE=target_BE
    )

  if data * latent > 1:
    by_params, rows = sae.partition_specs(params), jax.P("data", None)
    scalars = dict.fromkeys(("fvu", "l0", "auxk", "redone", "recall"), jax.P())
    report = losses.Report(**scalars, fired_F=jax.P("latent"), fvu_M=jax.P())
    call = jax.shard_map(
      call,
      mesh=mesh.make(
        mesh.MeshConfig(data=data, latent=latent),
        jax.devices()[: data * latent],
      ),
      in_specs=(by_params, rows, jax.P("latent"), rows),
      out_specs=(jax.P(), report, by_params),
      check_vma=False,
    )
  return jax.jit(call)(params, x_BD, dead_F, target_BE)


def _assert_dense(found, spec, problem):
  loss, report, grads = found
  (expected, dense), dense_grads = DENSE(*problem, spec)
  # Float64: sums of at most B·F = 768 terms of size ~10.
  np.testing.assert_allclose(loss, expected, rtol=1e-12)
  for name in ("fvu", "l0", "auxk"):
    np.testing.assert_allclose(getattr(report, name), dense[name], rtol=1e-11)
  np.testing.assert_array_equal(report.fired_F, dense["fired_F"])
  assert jax.tree.structure(grads) == jax.tree.structure(dense_grads)
  for field in dataclasses.fields(grads):
    wanted = getattr(dense_grads, field.name)
    if wanted is None:
      continue
    size = float(jnp.abs(wanted).max())
    assert size > 0, field.name
    np.testing.assert_allclose(
      getattr(grads, field.name),
      wanted,
      rtol=0,
      atol=1e-11 * size,
      err_msg=field.name,
    )


@pytest.fixture(scope="module", autouse=True)
def quickly(quick_compilation):
  """Most of the time here is XLA's."""


@pytest.mark.parametrize("name", ["gated", "jumprelu_target"])
def test_gradient_is_dense_autograd_s(name, monkeypatch):
  # One chunk of rows and a part of one; one program each.
  monkeypatch.setattr(dense_losses, "_CPU_ROWS", 15)
  spec = SPECS[name]
  with jax.enable_x64(True):
    problem = _problem(spec)
    _assert_dense(_run(spec, *problem), spec, problem)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "shape"),
  [
    ("relu", (1, 8)),
    ("gated_sources", (2, 4)),
    ("jumprelu", (2, 4)),
  ],
)
def test_every_mesh_has_dense_autograd_s_gradient(name, shape):
  spec = SPECS[name]
  with jax.enable_x64(True):
    problem = _problem(spec)
    _assert_dense(_run(spec, *problem, *shape), spec, problem)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gated", "jumprelu_target"])
def test_a_transcoder_has_dense_autograd_s_gradient(name):
  spec = dataclasses.replace(SPECS[name], centred=False)
  with jax.enable_x64(True):
    problem = _problem(spec, transcoder=True)
    _assert_dense(_run(spec, *problem, 8, 1), spec, problem)


@pytest.mark.slow
@pytest.mark.parametrize("activation", dense_kinds.KINDS)
def test_nan_reaches_the_loss(activation):
  spec = dataclasses.replace(BASE, activation=activation, aux_coefficient=0.0)

  @jax.jit
  def loss(params, x_BD, dead_F):
    variance = jnp.float32(VARIANCE)
    return dense_losses.loss_and_grads(params, x_BD, dead_F, variance, spec)[0]

  problem = jax.tree.map(jnp.float32, _problem(spec)[:2])
  dead_F = jnp.zeros(F, bool)
  assert np.isfinite(loss(*problem, dead_F))
  params, x_BD = problem
  assert np.isnan(loss(params, x_BD.at[3, 2].set(jnp.nan), dead_F))
  # Latent 0 is active on some row.
  pre_BF = (x_BD - params.b_dec_D[None]) @ params.w_enc_FD.T
  params = dataclasses.replace(params, b_enc_F=params.b_enc_F.at[0].set(9))
  assert float(pre_BF[:, 0].max()) > -9
  for field in dataclasses.fields(params):
    array = getattr(params, field.name)
    if array is not None:
      bad = dataclasses.replace(
        params, **{field.name: array.at[0].set(jnp.nan)}
      )
      assert np.isnan(loss(bad, x_BD, dead_F)), field.name


@pytest.mark.slow
def test_a_chunk_of_rows_is_all_that_is_dense_and_nothing_is_gathered():
  rows, latents, width = 4096, 1024, 16
  on = mesh.make(mesh.MeshConfig(data=2, latent=2), jax.devices()[:4])
  spec = dataclasses.replace(
    SPECS["jumprelu_target"],
    data_axis="data",
    latent_axis="latent",
    aux_coefficient=0.0,
  )
  shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  latent_F = shape((latents,))
  matrix_FD = shape((latents, width))
  params = sae.Params(
    matrix_FD, matrix_FD, latent_F, shape((width,)), threshold_F=latent_F
  )
  by_params = sae.partition_specs(params)
  compiled = (
    jax.jit(
      jax.shard_map(
        lambda p, x_BD, dead_F: dense_losses.loss_and_grads(
          p, x_BD, dead_F, jnp.float32(VARIANCE), spec
        )[::2],
        mesh=on,
        in_specs=(by_params, jax.P("data", None), jax.P("latent")),
        out_specs=(jax.P(), by_params),
        check_vma=False,
      )
    )
    .lower(params, shape((rows, width)), shape((latents,), dtype=bool))
    .compile()
  )
  # A shard's [B, F] would be 4 MiB for each of half a dozen arrays. A chunk has
  # a quarter of the shard's rows.
  whole = rows // 2 * latents // 2 * 4
  chunk = whole * dense_losses._CPU_ROWS // (rows // 2)
  temporaries = compiled.memory_analysis().temp_size_in_bytes
  assert chunk < temporaries < 2 * whole
  text = compiled.as_text()
  for exchange in ("all-gather", "all-to-all", "collective-permute"):
    assert exchange not in text
  # One sum over latent shards for a chunk: of its reconstruction.
  assert (
    text.count(f"f32[{dense_losses._CPU_ROWS},{width}]{{1,0}} all-reduce") == 1
  )
