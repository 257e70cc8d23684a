# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Encode, decode, folding, metadata, initial values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, sae
from sae_jax.sae import init

D, F, K, B = 12, 80, 3, 40


def _params(seed=0):
  rng = np.random.default_rng(seed)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), "float32")

  return sae.Params(draw(F, D), draw(F, D), draw(F), draw(D))


def _rows(seed=1):
  return np.random.default_rng(seed).normal(size=(B, D)).astype(np.float32)


def test_encode_and_decode_are_the_definition():
  dictionary, x_BD = sae.make_sae(_params(), K), _rows()
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), dictionary.params)
  pre_BF = (x_BD - p.b_dec_D) @ p.w_enc_FD.T + p.b_enc_F
  best_BK = np.argsort(-pre_BF, axis=1)[:, :K]
  dense_BF = np.zeros((B, F))
  np.put_along_axis(
    dense_BF,
    best_BK,
    np.maximum(np.take_along_axis(pre_BF, best_BK, 1), 0),
    axis=1,
  )

  values_BK, indices_BK = sae.encode(dictionary, x_BD)
  np.testing.assert_array_equal(indices_BK, best_BK)
  # (D + 2) roundings of sums of size up to ~15.
  atol = 14 * 2**-23 * 15
  np.testing.assert_allclose(
    sae.encode_dense(dictionary, x_BD), dense_BF, rtol=0, atol=atol
  )
  np.testing.assert_allclose(
    sae.decode(dictionary, values_BK, indices_BK),
    dense_BF @ p.w_dec_FD + p.b_dec_D,
    rtol=0,
    atol=4 * atol,
  )


def test_negative_pre_activations_give_zeros():
  params = dataclasses.replace(_params(), b_enc_F=jnp.full((F,), -1e3))
  dictionary = sae.make_sae(params, K)
  values_BK, indices_BK = sae.encode(dictionary, _rows())
  assert (np.asarray(values_BK) == 0).all()
  np.testing.assert_array_equal(
    sae.decode(dictionary, values_BK, indices_BK),
    np.broadcast_to(params.b_dec_D, (B, D)),
  )


@pytest.mark.parametrize("scale", [1e-3, 0.37, 250.0])
def test_folding_the_scale_keeps_selection_and_norms(scale):
  params, x_BD = _params(), _rows() / scale
  trained = sae.make_sae(params, K)
  folded = sae.make_sae(sae.fold_scale(params, jnp.float32(scale)), K)
  values_BK, indices_BK = sae.encode(trained, x_BD * np.float32(scale))
  folded_BK, folded_indices_BK = sae.encode(folded, x_BD)
  np.testing.assert_array_equal(indices_BK, folded_indices_BK)
  atol = 20 * 2**-23 * 20  # (D + 4) roundings of sums of size up to ~20
  np.testing.assert_allclose(folded_BK * scale, values_BK, rtol=0, atol=atol)
  np.testing.assert_allclose(
    sae.decode(folded, folded_BK, folded_indices_BK) * scale,
    sae.decode(trained, values_BK, indices_BK),
    rtol=0,
    atol=4 * atol,
  )
  np.testing.assert_array_equal(folded.params.w_dec_FD, params.w_dec_FD)


def test_low_precision_rows_are_computed_in_float32():
  dictionary = sae.make_sae(_params(), K)
  x_BD = jnp.asarray(_rows(), "bfloat16")
  low, high = (
    sae.encode(dictionary, x) for x in (x_BD, x_BD.astype("float32"))
  )
  assert low[0].dtype == jnp.float32
  jax.tree.map(np.testing.assert_array_equal, low, high)


def test_a_dictionary_passes_through_jit_with_its_metadata():
  dictionary = sae.make_sae(
    _params(), K, {"hook_name": "blocks.2", "list": [1, None]}
  )
  encode = jax.jit(sae.encode)
  jax.tree.map(
    np.testing.assert_array_equal,
    encode(dictionary, _rows()),
    sae.encode(dictionary, _rows()),
  )
  again = jax.tree.map(lambda a: a, dictionary)
  assert again.metadata == dictionary.metadata
  assert dict(again.metadata) == {"hook_name": "blocks.2", "list": [1, None]}
  assert hash(again.metadata) == hash(dictionary.metadata)


def test_wrong_rows_are_refused():
  dictionary = sae.make_sae(_params(), K)
  with pytest.raises(errors.InputError, match=r"\[B, 12\]"):
    sae.encode(dictionary, np.zeros((2, 5, D), np.float32))
  with pytest.raises(errors.InputError, match=r"\[B, 12\]"):
    sae.encode(dictionary, np.zeros((2, D + 1), np.float32))


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("latents", 0),
    ("k", 0),
    ("k", 65),
    ("aux_k", 0),
    ("aux_k", 65),
    ("aux_coefficient", -1.0),
    ("aux_coefficient", float("nan")),
    ("dead_after_tokens", 0),
    ("dead_after_tokens", 2**31),
    ("decoder_bias", "zero"),
    ("matmul_dtype", "float16"),
  ],
)
def test_wrong_configurations_are_named(field, value):
  good = {"latents": 64, "k": 4}
  with pytest.raises(errors.InputError, match=rf"sae\.{field}={value!r}"):
    sae.SaeConfig(**{**good, field: value})


def test_aux_k_is_half_the_width_by_default():
  config = sae.SaeConfig(latents=300, k=4)
  assert config.resolve_aux_k(576) == 288
  assert config.resolve_aux_k(4096) == 300
  assert config.resolve_aux_k(1) == 1
  assert sae.SaeConfig(latents=300, k=4, aux_k=7).resolve_aux_k(576) == 7


def test_rows_are_unit_vectors_that_depend_on_their_number_only():
  key = jax.random.key(3)
  rows_FD = np.asarray(init.unit_rows(key, 0, 40, D))
  np.testing.assert_allclose(
    np.linalg.norm(rows_FD, axis=1), 1, atol=4 * 2**-23
  )
  np.testing.assert_array_equal(init.unit_rows(key, 25, 10, D), rows_FD[25:35])
  assert len(np.unique(rows_FD[:, 0])) == 40
  # Directions are uniform: the mean of 40 rows is about 1 / sqrt(40) long.
  assert np.linalg.norm(rows_FD.mean(0)) < 0.4


def test_the_geometric_median_is_the_minimiser():
  rng = np.random.default_rng(0)
  x_ND = rng.normal(size=(500, 5)).astype(np.float32) ** 3 + 2
  median_D = init.geometric_median(x_ND, tolerance=1e-9, max_iterations=1000)

  def distance(point_D):
    return np.linalg.norm(x_ND.astype(float) - point_D, axis=1).sum()

  best = distance(median_D)
  for step_D in np.eye(5) * 1e-2:
    assert best < distance(median_D + step_D)
    assert best < distance(median_D - step_D)


def test_the_geometric_median_ignores_outliers():
  rng = np.random.default_rng(0)
  x_ND = rng.normal(size=(1000, 8)).astype(np.float32)
  clean_D = init.geometric_median(x_ND)
  x_ND[:10] += 1e4
  assert np.linalg.norm(init.geometric_median(x_ND) - clean_D) < 0.1
  assert np.linalg.norm(init.mean(x_ND)) > 100


@pytest.mark.parametrize("rows", [1, 3, 5000])
def test_the_geometric_median_of_equal_rows_is_that_row(rows):
  x_ND = np.tile(np.float32([1.5, -2.0]), (rows, 1))
  np.testing.assert_array_equal(init.geometric_median(x_ND), [1.5, -2.0])
