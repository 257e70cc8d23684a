# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The TPU kernels of weight gradients and decode, interpreted, on float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, ops
from sae_jax.ops import specs
from sae_jax.ops.pair_grads import active_pairs, gather_sums_tpu, work_list
from sae_jax.ops.pair_grads import pallas_tpu as pair_grads_tpu
from sae_jax.ops.sparse_decode import compacted
from sae_jax.ops.sparse_decode import pallas_tpu as sparse_decode_tpu
from sae_jax.ops.weight_grads import pallas_tpu as weight_grads_tpu

EPS = 2**-23
SPECS = ["k_is_f", "one_latent_wins"]


def _problem(spec, seed=3, share=0.4, dtype="float32", front=False):
  """Values, of which `share` are not zero; indices, w_dec, x, gradient."""
  rng = np.random.default_rng(seed)
  values_BK = rng.normal(size=(spec.batch, spec.k))
  order_BF = rng.random((spec.batch, spec.latents))
  if spec.case == "winner":
    order_BF[:, 3] = -1
    values_BK[:, 0] = 1
  values_BK[:, 1:][rng.random((spec.batch, spec.k - 1)) > share] = 0
  if spec.case != "winner":
    values_BK[rng.random(spec.batch) > share, 0] = 0
  if front:
    values_BK = -np.sort(-np.abs(values_BK), axis=1)
  indices_BK = np.argsort(order_BF, axis=1)[:, : spec.k].astype(np.int32)
  w_FD = rng.normal(size=(spec.latents, spec.d_model))
  x_BD, grad_BD = rng.normal(size=(2, spec.batch, spec.d_model))
  return (
    jnp.asarray(values_BK, "float32"),
    jnp.asarray(indices_BK),
    jnp.asarray(w_FD, "float32"),
    jnp.asarray(x_BD, dtype),
    jnp.asarray(grad_BD, dtype),
  )


def _compiled():
  """Everything the kernels compute."""
  # A new function each time: what is cached may be of other buffer sizes.
  return jax.jit(
    lambda v, i, w, x, g: (
      *weight_grads_tpu.weight_grads(v, i, w, x, g),
      pair_grads_tpu.pair_grads(v, i, x, w.shape[0]),
      sparse_decode_tpu.sparse_decode(v, i, w),
    )
  )


def _expected(values_BK, indices_BK, w_FD, x_BD, grad_BD):
  """The same in float64, and the sizes of the sums' terms."""
  values_BK, w_FD, x_BD, grad_BD = (
    np.asarray(a, float) for a in (values_BK, w_FD, x_BD, grad_BD)
  )
  row_B1 = np.arange(len(x_BD))[:, None]
  shape = len(x_BD), len(w_FD)

  def dense(pairs_BK):
    dense_BF = np.zeros(shape)
    dense_BF[row_B1, indices_BK] = np.where(values_BK != 0, pairs_BK, 0)
    return dense_BF

  def sums(values_BF, dots_BF, w_FD, x_BD, grad_BD):
    return (
      dots_BF.T @ x_BD,
      values_BF.T @ grad_BD,
      dots_BF.sum(0),
      values_BF.T @ x_BD,
      values_BF @ w_FD,
    )

  values_BF, dots_BF = (
    dense(values_BK),
    dense((grad_BD @ w_FD.T)[row_B1, indices_BK]),
  )
  sizes_BF = dense((np.abs(grad_BD) @ np.abs(w_FD).T)[row_B1, indices_BK])
  absolute = map(np.abs, (values_BF, sizes_BF, w_FD, x_BD, grad_BD))
  return sums(values_BF, dots_BF, w_FD, x_BD, grad_BD), sums(*absolute)


def _check(spec, problem, run=None):
  found = (run or _compiled())(*problem)
  expected, sizes = _expected(*problem)
  # A float32 sum of n products is within (n + 1) · eps · Σ|a||b|, and n is at
  # most B or K; the products of `grad` and `w_dec` add D terms and a rounding.
  dots, plain = spec.d_model + spec.batch + 3, max(spec.batch, spec.k) + 1
  for f, e, size, n in zip(
    found, expected, sizes, (dots, plain, dots, plain, plain), strict=True
  ):
    assert f.dtype == np.float32
    assert (np.abs(f - e) <= n * EPS * size + 1e-30).all()
  return found


def _small_buffers(monkeypatch, size=8, capacity=8):
  """Many chunks and tiles, and all capacities, at a small problem."""
  monkeypatch.setattr(gather_sums_tpu, "_MOST", size)
  monkeypatch.setattr(active_pairs, "_SMALLEST", capacity)


def test_no_active_pair_is_lost(monkeypatch):
  _small_buffers(monkeypatch)
  spec = specs.Spec(60, 1, 90, 4)
  listed = jax.jit(
    lambda v, i: (
      active_pairs.by_row(v, i, 16),
      active_pairs.by_latent(v, i, 90, 16),
    )
  )
  # Capacities are 10, 40 and 240 pairs; every one is needed, in both orders.
  for share in (0.0, 0.02, 0.12, 0.6, 1.0):
    for front in (True, False):
      values_BK, indices_BK, *_ = _problem(spec, share=share, front=front)
      row_BK = np.broadcast_to(np.arange(60)[:, None], (60, 4))
      on_BK = np.asarray(values_BK) != 0
      columns = (row_BK, np.asarray(indices_BK), np.asarray(values_BK))
      columns = (column_BK[on_BK] for column_BK in columns)
      by_row = sorted(zip(*columns, strict=True))
      by_latent = sorted((i, b, v) for b, i, v in by_row)
      for found, expected in zip(
        listed(values_BK, indices_BK), (by_row, by_latent), strict=True
      ):
        count = int(found.count)
        columns = (found.owner_P, found.source_P, found.coef_P)
        pairs = list(zip(*map(np.asarray, columns), strict=True))
        assert sorted(pairs[:count]) == expected
        owners = [owner for owner, _, _ in pairs[:count]]
        assert owners == sorted(owners)
        assert set(pairs[count:]) <= {(active_pairs.NOBODY, 0, 0.0)}
        assert len(pairs) == 240


def test_too_many_latents_and_rows_for_one_key_are_sorted_by_two():
  values_BK = jnp.ones((3, 2), "float32")
  indices_BK = jnp.array([[5, 2**30], [2**30, 7], [6, 5]], "int32")
  found = active_pairs.by_latent(values_BK, indices_BK, 2**30 + 1, 8)
  expected = [5, 5, 6, 7, 2**30, 2**30, *[active_pairs.NOBODY] * 2]
  np.testing.assert_array_equal(found.owner_P, expected)
  np.testing.assert_array_equal(found.source_P, [0, 2, 2, 1, 0, 1, 0, 0])


def test_a_list_that_scalar_memory_does_not_hold_is_refused():
  def sums(chunks):
    pairs = active_pairs.Pairs(
      *(jax.ShapeDtypeStruct((128 * chunks,), d) for d in ("int32", "int32")),
      jax.ShapeDtypeStruct((128 * chunks,), "float32"),
      jax.ShapeDtypeStruct((), "int32"),
    )
    return jax.eval_shape(
      lambda pairs, rows_RSL: gather_sums_tpu.gather_sums(
        pairs,
        rows_RSL,
        *(100, 9),  # owners in one tile, columns
        sizes=work_list.Sizes(128, 128),
        interpret=True,
      ),
      pairs,
      jax.ShapeDtypeStruct((7, 8, 128), "float32"),
    )

  assert sums(65_535).shape == (100, 9)
  with pytest.raises(errors.InputError, match=r"65537 items.*at most 65536"):
    sums(65_536)


def test_sums_over_many_chunks_and_tiles(monkeypatch):
  # Latent 3 is in chunk after chunk, most latents have no pair at all.
  _small_buffers(monkeypatch)
  spec = specs.Spec(40, 9, 100, 3, "winner")
  _check(spec, _problem(spec, share=0.2, front=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_sums_are_right_in_float32(name):
  spec = specs.TEST[name]
  _check(spec, _problem(spec))


@pytest.mark.slow
def test_bfloat16_rows_lose_nothing(monkeypatch):
  # D = 2304 is padded to 4096 in bfloat16, to 3072 in float32.
  _small_buffers(monkeypatch, 16)
  spec = specs.Spec(24, 2304, 40, 3)
  _check(spec, _problem(spec, dtype="bfloat16"))


@pytest.mark.slow
def test_extremes_in_one_program():
  spec = specs.TEST["odd"]
  problem = values_BK, indices_BK, *rest = _problem(spec)
  run = _compiled()
  first = _check(spec, problem, run)
  for a, b in zip(first, run(*problem), strict=True):
    np.testing.assert_array_equal(a, b)

  nothing = run(jnp.zeros_like(values_BK), indices_BK, *rest)
  assert not any(np.any(a) for a in nothing)

  # A NaN reaches the sums that it belongs to, and no others.
  latent = int(indices_BK[2, 1])
  values_BK = values_BK.at[2, 1].set(jnp.nan)
  _, w_dec_FD, _, pairs_FD, out_BD = run(values_BK, indices_BK, *rest)
  for array, row in ((w_dec_FD, latent), (pairs_FD, latent), (out_BD, 2)):
    bad = np.flatnonzero(np.isnan(np.asarray(array)).any(axis=1))
    np.testing.assert_array_equal(bad, [row])


@pytest.mark.slow
def test_weight_grads_is_the_composition_of_its_parts():
  spec = specs.TEST["odd"]
  problem = _problem(spec)
  _, indices_BK, w_FD, _, grad_BD = problem
  expected, _ = _expected(*problem)
  dots_BK = ops.row_dots(grad_BD, indices_BK, w_FD)
  for implementation in ("cpu", "pallas_tpu"):
    for dots in (None, dots_BK):
      found = ops.weight_grads(*problem, dots, implementation=implementation)
      for f, e in zip(found, expected[:3], strict=True):
        # Sums of at most 13 terms of size up to ~20 times 4, in float32.
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_decode_of_few_active_pairs_reads_them_all(monkeypatch):
  monkeypatch.setattr(compacted, "_ELEMENTS", 4 * 9 * 16)
  spec = specs.Spec(60, 9, 50, 7)
  run = jax.jit(
    lambda v, i, w, x: (
      compacted.sparse_decode(v, i, w),
      compacted.active_row_dots(x, i, w, v),
    )
  )
  for share in (0.0, 0.1, 0.4, 1.0):
    for front in (True, False):
      problem = _problem(spec, share=share, front=front)
      values_BK, indices_BK, w_FD, x_BD, _ = problem
      # One row has them all, so that its chunk takes every column.
      values_BK = values_BK.at[7].set(1)
      v, w, x = (np.asarray(a, float) for a in (values_BK, w_FD, x_BD))
      w_BKD = w[np.asarray(indices_BK)]
      found = run(values_BK, indices_BK, w_FD, x_BD)
      for f, sums, a, n in zip(
        found, ("bk,bkd->bd", "bd,bkd->bk"), (v, x), (7, 9), strict=True
      ):
        expected = np.einsum(sums, a, w_BKD)
        size = np.einsum(sums, abs(a), abs(w_BKD))
        if n == 9:
          expected[v == 0] = 0
        assert (abs(f - expected) <= (n + 1) * EPS * size + 1e-30).all()
