# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every kind of dictionary against its formula in float64 numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, sae

_B, _D, _F = 12, 8, 48
# Dot products of length 8 and 48, values of order 1.
_CLOSE = {"rtol": 0, "atol": 60 * 2**-24}


def _params(rng, **extra):
  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32) / np.sqrt(_D)

  return sae.Params(
    w_enc_FD=normal(_F, _D),
    w_dec_FD=normal(_F, _D),
    b_enc_F=normal(_F),
    b_dec_D=normal(_D),
    **{name: normal(*shape) for name, shape in extra.items()},
  )


def _wide(params):
  return jax.tree.map(lambda a: np.asarray(a, np.float64), params)


def _expected(kind, p, pre_BF):
  relu_BF = np.maximum(pre_BF, 0)
  match kind:
    case "relu":
      return relu_BF
    case "jumprelu":
      return relu_BF * (pre_BF > p.threshold_F)
    case "gated":
      magnitude_BF = np.exp(p.log_gain_F) * (pre_BF - p.b_enc_F) + p.b_mag_F
      return np.maximum(magnitude_BF, 0) * (pre_BF > 0)


_ARRAYS = {
  "relu": {},
  "jumprelu": {"threshold_F": (_F,)},
  "gated": {"log_gain_F": (_F,), "b_mag_F": (_F,)},
}


@pytest.mark.parametrize("kind", _ARRAYS)
def test_a_kind_is_its_formula_and_sparse_is_dense(kind):
  rng = np.random.default_rng(0)
  params = _params(rng, **_ARRAYS[kind])
  dictionary = sae.make_sae(params, 4, activation=kind)
  x_BD = rng.normal(size=(_B, _D)).astype(np.float32)
  p = _wide(params)
  pre_BF = (x_BD - p.b_dec_D) @ p.w_enc_FD.T + p.b_enc_F
  expected_BF = _expected(kind, p, pre_BF)

  dense_BF = sae.encode_dense(dictionary, x_BD)
  np.testing.assert_allclose(dense_BF, expected_BF, **_CLOSE)
  values_BK, indices_BK = sae.encode(dictionary, x_BD)
  # As many places as the fullest row needs, more than `k`.
  assert values_BK.shape[1] >= (expected_BF > 0).sum(axis=1).max() > 4
  sparse_BF = sae.to_dense(values_BK, indices_BK, _F)
  np.testing.assert_allclose(sparse_BF, expected_BF, **_CLOSE)
  out_BD = sae.decode(dictionary, values_BK, indices_BK)
  expected_BD = expected_BF @ p.w_dec_FD + p.b_dec_D
  np.testing.assert_allclose(out_BD, expected_BD, **_CLOSE)


def test_compiled_rows_with_too_many_active_latents_are_nan():
  rng = np.random.default_rng(1)
  params = _params(rng)
  x_BD = jnp.asarray(rng.normal(size=(_B, _D)), jnp.float32)
  active_B = np.sum(
    np.asarray(
      sae.encode_dense(sae.make_sae(params, 1, activation="relu"), x_BD)
    )
    > 0,
    axis=1,
  )
  places = int(np.median(active_B))
  dictionary = sae.make_sae(params, places, activation="relu")
  values_BK, _ = jax.jit(sae.encode)(dictionary, x_BD)
  assert values_BK.shape[1] == places
  nan_B = np.isnan(np.asarray(values_BK)).all(axis=1)
  np.testing.assert_array_equal(nan_B, active_B > places)


@pytest.mark.parametrize("kind", ["topk", *_ARRAYS])
def test_a_nan_in_a_row_reaches_its_values(kind):
  rng = np.random.default_rng(2)
  params = _params(rng, **_ARRAYS.get(kind, {}))
  x_BD = rng.normal(size=(_B, _D)).astype(np.float32)
  x_BD[3, 2] = np.nan
  values_BK, _ = sae.encode(sae.make_sae(params, 4, activation=kind), x_BD)
  assert np.isnan(np.asarray(values_BK)[3]).any()
  assert np.isfinite(np.asarray(values_BK)[[0, 1, 2, 4]]).all()


def test_a_skip_transcoder_and_its_input():
  rng = np.random.default_rng(3)
  params = dataclasses.replace(
    _params(rng, w_skip_DE=(_D, 5)),
    w_dec_FD=jnp.asarray(rng.normal(size=(_F, 5)), jnp.float32),
    b_dec_D=jnp.asarray(rng.normal(size=5), jnp.float32),
  )
  with pytest.raises(errors.InputError, match="centred=False"):
    sae.make_sae(params, 4)
  dictionary = sae.make_sae(params, 4, activation="relu", centred=False)
  x_BD = rng.normal(size=(_B, _D)).astype(np.float32)
  p = _wide(params)
  values_BF = np.maximum(x_BD @ p.w_enc_FD.T + p.b_enc_F, 0)
  expected_BE = values_BF @ p.w_dec_FD + p.b_dec_D + x_BD @ p.w_skip_DE
  coded = sae.encode(dictionary, x_BD)
  with pytest.raises(errors.InputError, match="skip connection"):
    sae.decode(dictionary, *coded)
  out_BE = sae.decode(dictionary, *coded, x_BD)
  # Decoder rows of length about sqrt(5) and 24 active latents.
  np.testing.assert_allclose(out_BE, expected_BE, rtol=0, atol=300 * 2**-24)


def test_a_layer_norm_is_undone():
  """The same output scale as the input's: x -> 3 x + 5 gives 3 out + 5."""
  rng = np.random.default_rng(4)
  dictionary = sae.make_sae(_params(rng), 4, layer_norm=True)
  x_BD = rng.normal(size=(_B, _D)).astype(np.float32) * 100

  def reconstruct(x_BD):
    return np.asarray(
      sae.decode(dictionary, *sae.encode(dictionary, x_BD), x_BD)
    )

  # Up to the epsilon beside deviations of 100: 1e-7 of values below 1e4.
  np.testing.assert_allclose(
    reconstruct(3 * x_BD + 5), 3 * reconstruct(x_BD) + 5, rtol=1e-5, atol=1e-2
  )


def test_arrays_that_do_not_fit_are_named():
  rng = np.random.default_rng(5)
  params = _params(rng)
  with pytest.raises(errors.InputError, match="needs threshold_F"):
    sae.make_sae(params, 4, activation="jumprelu")
  with pytest.raises(errors.InputError, match="choose one of topk"):
    sae.make_sae(params, 4, activation="tanh")
  short = dataclasses.replace(params, b_enc_F=params.b_enc_F[:-1])
  with pytest.raises(errors.InputError, match="b_enc_F has the shape"):
    sae.make_sae(short, 4)
