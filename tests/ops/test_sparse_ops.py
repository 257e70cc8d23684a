# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""sparse_decode, row_dots, pair_grads, pair_sums against float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, ops
from sae_jax.ops import specs

IMPLEMENTATIONS = ["cpu", "reference", "xla"]
SPECS = ["k_is_f", "many_rows", "odd", "one_latent_wins", "one_row_one_latent"]
GRADIENT_SPECS = ["odd", "many_rows", "k_is_f", "one_latent_wins"]
EPS = 2**-23


def _pairs(spec, seed=2):
  """Values and distinct latents per row; "winner" rows all hold latent 3."""
  rng = np.random.default_rng(seed)
  values_BK = rng.normal(size=(spec.batch, spec.k))
  order_BF = rng.random((spec.batch, spec.latents))
  if spec.case == "winner":
    order_BF[:, 3] = -1
  if spec.case == "zero":
    values_BK[:] = 0
  indices_BK = np.argsort(order_BF, axis=1)[:, : spec.k].astype(np.int32)
  return values_BK, indices_BK


def _dense(values_BK, indices_BK, latents):
  dense_BF = np.zeros((len(values_BK), latents))
  np.add.at(
    dense_BF, (np.arange(len(values_BK))[:, None], indices_BK), values_BK
  )
  return dense_BF


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_values_are_right_in_float32(implementation, name):
  spec = specs.TEST[name]
  inputs = specs.make_inputs(spec)
  values_BK, indices_BK = _pairs(spec)
  v32_BK, x32_BD, w32_FD = (
    np.asarray(a, np.float32) for a in (values_BK, inputs.x_BD, inputs.w_dec_FD)
  )
  dense_BF = _dense(v32_BK, indices_BK, spec.latents)
  size_BF = np.abs(dense_BF)
  x_BD, w_FD = x32_BD.astype(float), w32_FD.astype(float)
  how = {"implementation": implementation}

  @jax.jit
  def run(v_BK, indices_BK, x_BD, w_FD):
    return (
      ops.sparse_decode(v_BK, indices_BK, w_FD, **how),
      ops.row_dots(x_BD, indices_BK, w_FD, **how),
      ops.pair_grads(v_BK, indices_BK, x_BD, spec.latents, **how),
      ops.pair_sums(v_BK, indices_BK, spec.latents, **how),
    )

  row_B1 = np.arange(spec.batch)[:, None]
  expected = (
    dense_BF @ w_FD,
    (x_BD @ w_FD.T)[row_B1, indices_BK],
    dense_BF.T @ x_BD,
    dense_BF.sum(0),
  )
  sizes = (
    size_BF @ np.abs(w_FD),
    (np.abs(x_BD) @ np.abs(w_FD).T)[row_B1, indices_BK],
    size_BF.T @ np.abs(x_BD),
    size_BF.sum(0),
  )
  terms = (spec.k, spec.d_model, spec.batch, spec.batch)
  found = run(v32_BK, indices_BK, x32_BD, w32_FD)
  for f, e, size, n in zip(found, expected, sizes, terms, strict=True):
    # A float32 sum of n products is within (n + 1) · eps · Σ|a||b|; the tiny
    # addend is for sums that are exactly zero.
    assert f.dtype == np.float32
    assert (np.abs(f - e) <= (n + 1) * EPS * size + 1e-30).all()


@pytest.mark.parametrize("name", GRADIENT_SPECS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradient_of_decode_is_dense_autograd_s(implementation, name):
  spec = specs.TEST[name]
  values_BK, indices_BK = _pairs(spec)
  with jax.enable_x64(True):
    values_BK = jnp.asarray(values_BK)
    w_dec_FD = jnp.asarray(specs.make_inputs(spec).w_dec_FD)
    weight_BD = jnp.asarray(specs.make_inputs(spec).x_BD)

    def sparse(values_BK, w_dec_FD):
      out_BD = ops.sparse_decode(
        values_BK, indices_BK, w_dec_FD, implementation=implementation
      )
      return jnp.sum(weight_BD * out_BD**2)

    def dense(values_BK, w_dec_FD):
      out_BD = jnp.einsum("bk,bkd->bd", values_BK, w_dec_FD[indices_BK])
      return jnp.sum(weight_BD * out_BD**2)

    for found, expected in zip(
      jax.jit(jax.grad(sparse, (0, 1)))(values_BK, w_dec_FD),
      jax.jit(jax.grad(dense, (0, 1)))(values_BK, w_dec_FD),
      strict=True,
    ):
      # Float64 sums of at most ~2000 terms of size up to ~100.
      np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_two_runs_are_bit_equal(implementation):
  spec = specs.TEST["many_rows"]
  values_BK, indices_BK = _pairs(spec)
  x_BD = jnp.asarray(specs.make_inputs(spec).x_BD, "float32")
  v_BK = jnp.asarray(values_BK, "float32")
  first, second = (
    ops.pair_grads(
      v_BK, indices_BK, x_BD, spec.latents, implementation=implementation
    )
    for _ in range(2)
  )
  np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_rows_are_summed_in_float32(implementation):
  # 300 ones of 2**-8 relative size each: a bfloat16 sum would stall at 256.
  batch = 300
  ones_BK = jnp.ones((batch, 1), "bfloat16")
  zeros_BK = jnp.zeros((batch, 1), "int32")
  x_BD = jnp.ones((batch, 2), "bfloat16")
  grad_FD = ops.pair_grads(
    ones_BK, zeros_BK, x_BD, 3, implementation=implementation
  )
  sums_F = ops.pair_sums(ones_BK, zeros_BK, 3, implementation=implementation)
  np.testing.assert_array_equal(grad_FD, [[300, 300], [0, 0], [0, 0]])
  np.testing.assert_array_equal(sums_F, [300, 0, 0])


def test_an_unknown_implementation_is_refused():
  with pytest.raises(errors.InputError, match=r"'triton'.*'cpu'"):
    ops.pair_sums(
      jnp.ones((1, 1)),
      jnp.zeros((1, 1), "int32"),
      3,
      implementation="triton",
    )
