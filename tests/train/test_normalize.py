# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Treated rows: what is trained on, and the dictionary that takes raw ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, mesh, sae
from sae_jax.sae import treatment as treatment_lib
from sae_jax.sae import unfold
from sae_jax.train import normalize

D, E, F, K, N = 12, 8, 32, 4, 200
KINDS = ("scale", "centre", "standardize")


def _rows(width, seed):
  """Rows whose dimensions have means and deviations of their own."""
  rng = np.random.default_rng(seed)
  deviation_D = np.exp(rng.normal(size=width))
  return deviation_D * rng.normal(size=(N, width)) + 3 * rng.normal(size=width)


def _treated(kind, x_ND, sources=1):
  return normalize.treat(kind, x_ND, normalize.measure(x_ND), sources=sources)


def _float32(tree):
  return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)


def _params(activation, d_out, seed=0):
  """Trained parameters: decoder rows of norm 1."""
  rng = np.random.default_rng(seed)
  w_dec_FE = rng.normal(size=(F, d_out))
  more = {}
  if activation == "jumprelu":
    more = {"threshold_F": rng.uniform(0.5, 2, F)}
  if activation == "gated":
    more = {
      "log_gain_F": 0.3 * rng.normal(size=F),
      "b_mag_F": rng.normal(size=F),
    }
  params = sae.Params(
    w_enc_FD=rng.normal(size=(F, D)),
    w_dec_FD=w_dec_FE / np.linalg.norm(w_dec_FE, axis=1, keepdims=True),
    b_enc_F=rng.normal(size=F),
    b_dec_D=rng.normal(size=d_out),
    **more,
  )
  return jax.tree.map(lambda a: np.asarray(a, np.float32), params)


def _oracle(params, activation, x_ND, centred):
  """Values and reconstruction of treated rows, float64."""
  p = jax.tree.map(np.float64, params)
  inner_ND = x_ND - p.b_dec_D if centred else x_ND
  pre_NF = inner_ND @ p.w_enc_FD.T + p.b_enc_F
  value_NF = np.maximum(pre_NF, 0)
  if activation == "topk":
    kth_N1 = np.sort(pre_NF, axis=1)[:, -K][:, None]
    value_NF = np.where(pre_NF >= kth_N1, value_NF, 0)
  elif activation == "jumprelu":
    value_NF = np.where(pre_NF > p.threshold_F, value_NF, 0)
  elif activation == "gated":
    magnitude_NF = np.exp(p.log_gain_F) * (pre_NF - p.b_enc_F) + p.b_mag_F
    value_NF = np.where(pre_NF > 0, np.maximum(magnitude_NF, 0), 0)
  out_NE = value_NF @ p.w_dec_FD + p.b_dec_D
  if p.w_skip_DE is not None:
    out_NE = out_NE + x_ND @ p.w_skip_DE
  return value_NF, out_NE


def _treat(rows, x_ND):
  """In float64, from the float32 numbers that training has."""
  treatment = jax.tree.map(np.float64, _float32(rows.treatment))
  shift_D = 0 if treatment.shift_D is None else treatment.shift_D
  return (x_ND - shift_D) * treatment.scale


def _untreat(rows, x_ND):
  treatment = jax.tree.map(np.float64, _float32(rows.treatment))
  shift_D = 0 if treatment.shift_D is None else treatment.shift_D
  return x_ND / treatment.scale + shift_D


def _check(exported, params, activation, x_ND, inputs, outputs=None):
  value_NF, out_NE = _oracle(
    params, activation, _treat(inputs, x_ND), centred=outputs is None
  )
  wanted_NE = _untreat(outputs or inputs, out_NE)
  x_ND = jnp.asarray(x_ND, jnp.float32)
  found_NF = np.asarray(sae.encode_dense(exported, x_ND))
  # The same latents: no pre-activation here is within 1e-4 of where it counts.
  np.testing.assert_array_equal(found_NF > 0, value_NF > 0)
  found_NE = np.asarray(sae.decode(exported, *sae.encode(exported, x_ND), x_ND))
  # Sums of D products and of F values, rounded in float32, as large as outputs.
  size = np.abs(wanted_NE).max()
  np.testing.assert_allclose(
    found_NE, wanted_NE, rtol=0, atol=4 * (D + F) ** 0.5 * 2**-23 * size
  )


@pytest.mark.parametrize("activation", ["topk", "jumprelu", "relu", "gated"])
@pytest.mark.parametrize("kind", KINDS)
def test_raw_rows_give_what_treated_rows_gave(kind, activation):
  x_ND = _rows(D, 1)
  rows = _treated(kind, x_ND)
  params = _params(activation, D)
  unit_rows = activation != "topk"
  exported = sae.make_sae(
    treatment_lib.fold(
      _float32(params), _float32(rows.treatment), unit_rows=unit_rows
    ),
    K,
    activation=activation,
  )
  _check(exported, params, activation, x_ND, rows)
  norm_F = np.linalg.norm(exported.params.w_dec_FD, axis=1)
  if unit_rows or kind != "standardize":
    np.testing.assert_allclose(norm_F, 1, rtol=4 * 2**-23)
  else:
    assert 0.5 < np.mean(norm_F**2) < 2 and np.ptp(norm_F) > 0.5


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("activation", ["topk", "jumprelu"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_transcoder_s_two_sides_are_treated_apart(kind, activation, skip):
  x_ND, y_NE = _rows(D, 1), 20 * _rows(E, 2)
  inputs, outputs = _treated(kind, x_ND), _treated(kind, y_NE)
  params = _params(activation, E)
  if skip:
    w_skip_DE = np.random.default_rng(3).normal(size=(D, E))
    params = dataclasses.replace(params, w_skip_DE=np.float32(w_skip_DE))
  folded = treatment_lib.fold(
    _float32(params),
    _float32(inputs.treatment),
    _float32(outputs.treatment),
    unit_rows=activation != "topk",
  )
  exported = sae.make_sae(folded, K, activation=activation, centred=False)
  _check(exported, params, activation, x_ND, inputs, outputs)
  # And back.
  back = unfold.from_dictionary(
    exported,
    inputs.treatment,
    mesh.make(mesh.MeshConfig(data=2, latent=4)),
    outputs=outputs.treatment,
    wanted=params,
  )
  if activation == "topk":
    _assert_close(back, params)


def _assert_close(found, params):
  for field in dataclasses.fields(params):
    wanted = getattr(params, field.name)
    if wanted is None:
      assert getattr(found, field.name) is None
      continue
    # Scaled and unscaled, moved by means that are larger than what is left,
    # and matrix products of D terms with them.
    np.testing.assert_allclose(
      getattr(found, field.name), wanted, rtol=0, atol=2e-4, err_msg=field.name
    )


@pytest.mark.parametrize("activation", ["topk", "jumprelu", "gated"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_dictionary_for_raw_rows_is_taken_back(kind, activation):
  rows = _treated(kind, _rows(D, 1))
  params = _params(activation, D)
  exported = sae.make_sae(
    treatment_lib.fold(_float32(params), _float32(rows.treatment)),
    K,
    activation=activation,
  )
  on = mesh.make(mesh.MeshConfig(data=2, latent=4))
  back = unfold.from_dictionary(exported, rows.treatment, on, wanted=params)
  _assert_close(back, params)
  if kind == "scale":
    np.testing.assert_array_equal(back.w_enc_FD, params.w_enc_FD)
    np.testing.assert_array_equal(back.w_dec_FD, params.w_dec_FD)


def test_an_encoder_that_subtracts_nothing_is_taken_as_one_that_does():
  x_ND = _rows(D, 1)
  rows = _treated("centre", x_ND)
  raw = sae.make_sae(_float32(_params("topk", D)), K, centred=False)
  on = mesh.make(mesh.MeshConfig(latent=8))
  params = unfold.from_dictionary(raw, rows.treatment, on)
  params = jax.tree.map(np.asarray, params)
  value_NF, out_NE = _oracle(params, "topk", _treat(rows, x_ND), centred=True)
  expected_NF, expected_NE = _oracle(raw.params, "topk", x_ND, centred=False)
  np.testing.assert_array_equal(value_NF > 0, expected_NF > 0)
  np.testing.assert_allclose(_untreat(rows, out_NE), expected_NE, atol=1e-3)


def test_another_kind_of_dictionary_is_refused():
  rows = _treated("scale", _rows(D, 1))
  on = mesh.make(mesh.MeshConfig(latent=8))

  def take(source, wanted):
    dictionary = sae.make_sae(
      _float32(_params(source, D)), K, activation=source
    )
    unfold.from_dictionary(
      dictionary, rows.treatment, on, wanted=_params(wanted, D)
    )

  with pytest.raises(
    errors.InputError, match=r"\(topk\): it lacks threshold_F"
  ):
    take("topk", "jumprelu")
  with pytest.raises(errors.InputError, match=r"\(gated\): it has b_mag_F"):
    take("gated", "topk")
  take("jumprelu", "topk")  # BatchTopK from what it exported


@pytest.mark.parametrize("kind", KINDS)
def test_treated_rows_have_the_moments_that_were_asked_for(kind):
  x_ND = _rows(D, 1)
  x_ND[:, 5] = 2  # does not vary
  rows = _treated(kind, x_ND)
  found_ND = np.asarray(
    treatment_lib.apply(_float32(rows.treatment), jnp.asarray(x_ND)), np.float64
  )
  np.testing.assert_allclose(
    found_ND.var(0).sum(), rows.total_variance, rtol=1e-5
  )
  if kind == "standardize":
    varying = np.arange(D) != 5
    np.testing.assert_allclose(found_ND.var(0)[varying], 1, rtol=1e-5)
    assert found_ND.var(0)[5] == 0
  else:
    np.testing.assert_allclose((found_ND**2).sum(1).mean(), D, rtol=1e-5)
  if kind != "scale":
    np.testing.assert_allclose(found_ND.mean(0), 0, atol=1e-4)


def test_every_source_of_a_crosscoder_has_a_scale_of_its_own():
  x_ND = np.concatenate([_rows(6, 1), 50 * _rows(6, 2)], axis=1)
  for kind in ("scale", "centre"):
    rows = _treated(kind, x_ND, sources=2)
    found_ND = _treat(rows, x_ND)
    for part in (slice(6), slice(6, 12)):
      square = (found_ND[:, part] ** 2).sum(1).mean()
      np.testing.assert_allclose(square, 6, rtol=1e-5)
    assert len(set(rows.treatment.scale.tolist())) == 2


def test_dimensions_that_hardly_vary_stay_quiet():
  x_ND = _rows(D, 1)
  x_ND[:, 3] *= 1e-9
  scale_D = _treated("standardize", x_ND).treatment.scale
  rms = np.sqrt(x_ND.var(0).mean())
  np.testing.assert_allclose(scale_D[3], 1e3 / rms, rtol=1e-6)
