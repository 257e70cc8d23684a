# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Neighbours found block by block are those of the whole cosine matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, sae
from sae_jax import mesh as mesh_lib
from sae_jax.interpret import best_rows, neighbours

F, D, COUNT = 48, 12, 6
# A cosine is a sum of D products of entries of unit vectors: c · eps, c = 8.
ATOL = 8 * np.finfo(np.float32).eps


@pytest.fixture(scope="module")
def dictionary():
  w_FD = np.random.default_rng(3).normal(size=(F, D)).astype(np.float32)
  w_FD[[7, 20, 41]] = w_FD[3]  # twins, on other shards too
  w_FD[30] = 0
  zeros = np.zeros(F, np.float32), np.zeros(D, np.float32)
  return sae.make_sae(sae.Params(np.ones_like(w_FD), w_FD, *zeros), 4)


def cosines(dictionary):
  w_FD = np.asarray(dictionary.params.w_dec_FD, np.float64)
  length_F1 = np.linalg.norm(w_FD, axis=1, keepdims=True)
  unit_FD = w_FD / np.where(length_F1 > 0, length_F1, 1)
  return unit_FD @ unit_FD.T


@pytest.mark.parametrize("shards", [1, 4, 8])
def test_they_are_those_of_the_whole_matrix(dictionary, shards):
  mesh = mesh_lib.make(
    mesh_lib.MeshConfig(latent=shards, data=2 if shards == 4 else 1),
    jax.devices()[: 8 if shards == 4 else shards],
  )
  found = neighbours.nearest(dictionary, range(F), COUNT, mesh=mesh)
  cos_FF = cosines(dictionary)
  np.fill_diagonal(cos_FF, -np.inf)
  for latent, pairs in enumerate(found):
    ids_K = [other for other, _ in pairs]
    assert latent not in ids_K and len(set(ids_K)) == COUNT
    wanted_K = np.sort(cos_FF[latent])[::-1][:COUNT]
    np.testing.assert_allclose([cos for _, cos in pairs], wanted_K, atol=ATOL)
    np.testing.assert_allclose(cos_FF[latent, ids_K], wanted_K, atol=ATOL)


def test_twins_are_named_in_order_and_never_the_latent_itself(dictionary):
  mesh = mesh_lib.make(mesh_lib.MeshConfig(latent=8))
  for latent in (3, 7, 20, 41):
    ((*pairs,),) = neighbours.nearest(dictionary, [latent], 3, mesh=mesh)
    assert [i for i, _ in pairs] == [i for i in (3, 7, 20, 41) if i != latent]
  # More twins than are asked for.
  ((pair,),) = neighbours.nearest(dictionary, [41], 1, mesh=mesh)
  assert pair[0] == 3


def test_a_row_of_length_0_is_near_to_none(dictionary):
  (pairs,) = neighbours.nearest(dictionary, [30], 3, mesh=mesh_lib.single())
  assert pairs == [[0, 0.0], [1, 0.0], [2, 0.0]]


def test_a_dictionary_of_few_has_few_neighbours():
  params = sae.Params(np.eye(2), np.eye(2), np.zeros(2), np.zeros(2))
  mesh = mesh_lib.single()
  two = sae.make_sae(jax.tree.map(jnp.asarray, params), 1)
  assert neighbours.nearest(two, [1], 5, mesh=mesh) == [[[0, 0.0]]]
  assert neighbours.nearest(two, [], 5, mesh=mesh) == []
  assert neighbours.nearest(two, [0, 1], 0, mesh=mesh) == [[], []]


def test_an_unknown_latent_is_refused(dictionary):
  with pytest.raises(errors.InputError, match=r"latent 48.*0\.\.47"):
    neighbours.nearest(dictionary, [0, F], mesh=mesh_lib.single())


def _products(w_bD, query_ND):
  product_Nb = query_ND @ w_bD.T
  return product_Nb, -product_Nb


@pytest.mark.parametrize("block", [1, 7, 16, 99])
@pytest.mark.parametrize("rows", [20, 37, 48])
def test_blocks_and_shards_keep_the_order_of_ties(block, rows):
  rng = np.random.default_rng(1)
  w_RD = rng.integers(-1, 2, (F, 3)).astype(np.float32)  # many ties
  query_ND = rng.integers(-1, 2, (5, 3)).astype(np.float32)
  mesh = mesh_lib.make(mesh_lib.MeshConfig(latent=2), jax.devices()[:2])
  found = best_rows.best_rows(
    jax.device_put(w_RD, jax.NamedSharding(mesh, jax.P("latent", None))),
    (jnp.asarray(query_ND),),
    score=_products,
    count=9,
    rows=rows,
    mesh=mesh,
    block=block,
  )
  product_NR = (query_ND @ w_RD.T)[:, :rows]
  for (values_NK, ids_NK), score_NR in zip(
    found, (product_NR, -product_NR), strict=True
  ):
    order_NK = np.argsort(-score_NR, axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(ids_NK, order_NK)
    np.testing.assert_array_equal(
      values_NK, np.take_along_axis(score_NR, order_NK, 1)
    )
