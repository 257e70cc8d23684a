# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every implementation of topk_encode against float64 and dense autograd."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sae_jax import errors, mesh, ops
from sae_jax.ops import specs
from sae_jax.ops.topk_encode import cpu, sharded, xla

# "xla" is the reference in chunks; test_xla_takes_rows_in_chunks covers that.
IMPLEMENTATIONS = ["cpu", "reference"]
SPECS = sorted(specs.TEST)
GRADIENT_SPECS = ["odd", "ties", "two_level", "k_is_f", "one_latent_wins"]


def _cast(inputs, dtype):
  x_BD = jnp.asarray(inputs.x_BD, dtype)
  w_enc_FD = jnp.asarray(inputs.w_enc_FD, dtype)
  return x_BD, w_enc_FD, jnp.asarray(inputs.b_enc_F, "float32")


def _jitted(k, implementation):
  return jax.jit(
    functools.partial(ops.topk_encode, k=k, implementation=implementation)
  )


def _exact_pre(x_BD, w_enc_FD, b_enc_F):
  x_BD, w_enc_FD, b_enc_F = (
    np.asarray(a.astype("float32"), np.float64)
    for a in (x_BD, w_enc_FD, b_enc_F)
  )
  # Bound of a float32 dot product of D terms plus the bias, per row:
  # (D + 1) · eps · (Σ|x||w| + |b|).
  bound = (x_BD.shape[1] + 1) * 2**-23
  scale = np.abs(x_BD) @ np.abs(w_enc_FD).T + np.abs(b_enc_F)
  return x_BD @ w_enc_FD.T + b_enc_F, bound * scale


@pytest.mark.parametrize(
  ("name", "dtype"),
  [(name, "float32") for name in SPECS]
  + [(name, "bfloat16") for name in ("odd", "two_level", "ties")],
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_selects_the_k_largest(implementation, name, dtype):
  spec = specs.TEST[name]
  arrays = _cast(specs.make_inputs(spec), dtype)
  values_BK, indices_BK = map(
    np.asarray, _jitted(spec.k, implementation)(*arrays)
  )
  pre_BF, bound_BF = _exact_pre(*arrays)

  assert values_BK.dtype == np.float32
  assert indices_BK.dtype == np.int32
  assert values_BK.shape == indices_BK.shape == (spec.batch, spec.k)
  row_B1 = np.arange(spec.batch)[:, None]
  error_BK = np.abs(values_BK - pre_BF[row_B1, indices_BK])
  assert (error_BK <= bound_BF[row_B1, indices_BK]).all()
  assert (np.diff(values_BK, axis=1) <= 0).all()
  chosen_BF = np.zeros(pre_BF.shape, bool)
  chosen_BF[row_B1, indices_BK] = True
  assert (chosen_BF.sum(1) == spec.k).all(), "a latent was chosen twice"
  rest_BF = np.where(chosen_BF, -np.inf, pre_BF - bound_BF)
  assert (rest_BF <= values_BK[:, -1:]).all(), "a larger one was left out"


def test_xla_takes_rows_in_chunks(monkeypatch):
  spec = specs.TEST["two_level"]  # 37 rows: four chunks of 8, and 5
  arrays = _cast(specs.make_inputs(spec), "float32")
  monkeypatch.setattr(xla, "_CHUNK_ELEMENTS", 8 * spec.latents)
  jaxpr = jax.make_jaxpr(_jitted(spec.k, "xla"))(*arrays)
  assert f"[8,{spec.latents}]" in str(jaxpr)
  assert f"[37,{spec.latents}]" not in str(jaxpr)
  jax.tree.map(
    np.testing.assert_array_equal,
    _jitted(spec.k, "xla")(*arrays),
    _jitted(spec.k, "reference")(*arrays),
  )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["ties", "all_equal"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_ties_go_to_the_lower_latent(implementation, name, dtype):
  spec = specs.TEST[name]  # small integers: exact in both dtypes
  arrays = _cast(specs.make_inputs(spec), dtype)
  pre_BF, _ = _exact_pre(*arrays)
  expected_BK = np.argsort(-pre_BF, axis=1, kind="stable")[:, : spec.k]
  _, indices_BK = _jitted(spec.k, implementation)(*arrays)
  np.testing.assert_array_equal(indices_BK, expected_BK)


def _tricky_rows(rng, count, latents):
  """Few distinct values, -inf and NaN among them, in every arrangement."""
  pool = np.array([-np.inf, -1, 0, 0, 1, 1, 2, 3, np.nan], np.float32)
  rows = pool[rng.integers(0, len(pool), size=(count, latents))]
  rows[: count // 2] = np.where(
    rng.random((count // 2, latents)) < 0.97, -1, rows[: count // 2]
  )
  return rows


@pytest.mark.parametrize("group", [2, 5, 16])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_grouped_top_k_is_lax_top_k(k, group):
  rng = np.random.default_rng(k * 100 + group)
  for latents in (64, 129, 640):
    pre_BF = jnp.asarray(_tricky_rows(rng, 200, latents))
    expected = lax.top_k(pre_BF, k)
    found = jax.jit(cpu.grouped_top_k, static_argnums=(1, 2))(pre_BF, k, group)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_grouped_top_k_keeps_a_row_of_nan_and_infinity_non_finite():
  pre_BF = jnp.full((1, 640), jnp.inf).at[0, 600].set(jnp.nan)
  values_BK, _ = cpu.grouped_top_k(pre_BF, 3)
  assert not np.isfinite(values_BK).any()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_mask_excludes_latents(implementation):
  spec = specs.TEST["two_level"]
  x_BD, w_enc_FD, b_enc_F = _cast(specs.make_inputs(spec), "float32")
  mask_F = jnp.arange(spec.latents) % 128 == 5  # 8 = k latents
  _, indices_BK = ops.topk_encode(
    x_BD, w_enc_FD, b_enc_F, 8, mask_F=mask_F, implementation=implementation
  )
  assert (np.asarray(indices_BK) % 128 == 5).all()

  values_BK, indices_BK = ops.topk_encode(
    x_BD, w_enc_FD, b_enc_F, 10, mask_F=mask_F, implementation=implementation
  )
  assert (np.asarray(values_BK)[:, 8:] == -np.inf).all()
  np.testing.assert_array_equal(indices_BK[:, 8:], [[0, 1]] * spec.batch)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nan_and_infinity_are_not_hidden(implementation, dtype, bad):
  spec = specs.TEST["two_level"]
  x_BD, w_enc_FD, b_enc_F = _cast(specs.make_inputs(spec), dtype)
  x_BD = x_BD.at[3, 1].set(bad)
  x_BD = x_BD.at[3, 2].set(-bad)
  values_BK, _ = ops.topk_encode(
    x_BD, w_enc_FD, b_enc_F, spec.k, implementation=implementation
  )
  finite_B = np.isfinite(values_BK).all(1)
  assert not finite_B[3]
  assert finite_B.sum() == spec.batch - 1

  # With its sign bit set, as x86 makes them, a NaN would sort last.
  w_enc_FD = w_enc_FD.at[700].set(-jnp.nan)
  values_BK, indices_BK = ops.topk_encode(
    x_BD[4:], w_enc_FD, b_enc_F, spec.k, implementation=implementation
  )
  assert np.isnan(values_BK[:, 0]).all()
  assert (np.asarray(indices_BK)[:, 0] == 700).all()


@pytest.mark.parametrize("name", GRADIENT_SPECS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradient_is_dense_autograd_s(implementation, name):
  spec = specs.TEST[name]
  inputs = specs.make_inputs(spec)
  with jax.enable_x64(True):
    arrays = tuple(
      jnp.asarray(a) for a in (inputs.x_BD, inputs.w_enc_FD, inputs.b_enc_F)
    )
    weight_BK = jnp.asarray(
      np.random.default_rng(1).normal(size=(spec.batch, spec.k))
    )

    def sparse(*arrays):
      values_BK, _ = ops.topk_encode(
        *arrays, spec.k, implementation=implementation
      )
      return jnp.sum(weight_BK * values_BK)

    def dense(x_BD, w_enc_FD, b_enc_F):
      values_BK, _ = lax.top_k(x_BD @ w_enc_FD.T + b_enc_F[None], spec.k)
      return jnp.sum(weight_BK * values_BK)

    for found, expected in zip(
      jax.jit(jax.grad(sparse, (0, 1, 2)))(*arrays),
      jax.jit(jax.grad(dense, (0, 1, 2)))(*arrays),
      strict=True,
    ):
      # Sums of at most B·K ~ 2000 terms of size ~1 in float64.
      np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["two_level", "ties", "all_equal", "negative"])
@pytest.mark.parametrize("shards", [2, 8])
def test_shards_choose_what_one_device_chooses(shards, name):
  spec = specs.TEST[name]
  arrays = _cast(specs.make_inputs(spec), "float32")
  on = mesh.make(mesh.MeshConfig(latent=shards), jax.devices()[:shards])
  per_shard = spec.latents // shards

  def choose(x_BD, w_enc_FD, b_enc_F):
    values_BK, indices_BK = ops.topk_encode(x_BD, w_enc_FD, b_enc_F, spec.k)
    count_B = sharded.winners(values_BK, spec.k, "latent")
    kept_BK = jnp.arange(spec.k)[None, :] < count_B[:, None]
    first = lax.axis_index("latent") * per_shard
    return jnp.where(kept_BK, indices_BK + first, spec.latents)

  latents = jax.P("latent", None)
  found_BC = jax.jit(
    jax.shard_map(
      choose,
      mesh=on,
      in_specs=(jax.P(), latents, jax.P("latent")),
      out_specs=jax.P(None, "latent"),
      check_vma=False,
    )
  )(*arrays)
  _, expected_BK = ops.topk_encode(*arrays, spec.k)
  np.testing.assert_array_equal(
    np.sort(found_BC, axis=1)[:, : spec.k], np.sort(expected_BK, axis=1)
  )
  assert (np.sort(found_BC, axis=1)[:, spec.k :] == spec.latents).all()


def test_every_candidate_wins_when_there_are_too_few():
  # AuxK's compacted sets may hold fewer latents, on all shards, than aux_k.
  on = mesh.make(mesh.MeshConfig(latent=2), jax.devices()[:2])
  count = jax.jit(
    jax.shard_map(
      lambda values_BK: sharded.winners(values_BK, 9, "latent"),
      mesh=on,
      in_specs=jax.P(None, "latent"),
      out_specs=jax.P("latent"),
      check_vma=False,
    )
  )
  np.testing.assert_array_equal(count(jnp.ones((3, 8))), [4] * 6)


def test_wrong_arguments_are_named():
  x_BD, w_FD, b_F = jnp.ones((2, 3)), jnp.ones((5, 3)), jnp.ones(5)
  with pytest.raises(errors.InputError, match="k=6 with 5 latents"):
    ops.topk_encode(x_BD, w_FD, b_F, 6)
  with pytest.raises(errors.InputError, match="expected"):
    ops.topk_encode(x_BD, jnp.ones((5, 4)), b_F, 1)
  with pytest.raises(errors.InputError, match="bfloat16"):
    ops.topk_encode(x_BD, w_FD.astype("bfloat16"), b_F, 1)
  with pytest.raises(errors.InputError, match="'tpu' does not exist"):
    ops.topk_encode(x_BD, w_FD, b_F, 1, implementation="tpu")
