# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The TPU encoder, interpreted: what it keeps, what it says of the rest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.pallas import tpu as pltpu

from sae_jax import mesh, ops, sae
from sae_jax.ops import dispatch, specs, tpu_chips
from sae_jax.ops.topk_encode import api, pallas_tpu, reference
from sae_jax.sae import losses

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS, D_MODEL, LATENTS, K = 24, 16, 1100, 5
CASES = (
  "normal",
  "crowded",
  "ties",
  "negative",
  "few_allowed",
  "nan_row",
  "infinite_row",
  "nan_latent",
)


def _integers(rng, rows, latents, d_model):
  """Small integers: products are exact in every dtype, and ties are common."""
  x_BD = rng.integers(-1, 2, size=(rows, d_model)).astype(np.float32)
  w_FD = rng.integers(-1, 2, size=(latents, d_model)).astype(np.float32)
  return x_BD, w_FD, np.zeros(latents, np.float32)


def _first(values_BF, count):
  """Positions of the `count` largest, equal ones in order."""
  return np.argsort(-values_BF, axis=-1, kind="stable")[..., :count]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernel_keeps_the_best_of_every_bucket(dtype):
  # Rows, latents and inner dimension take several tiles, the last of the
  # first two reaching past the end.
  rows, d_model, buckets = 48, 256, pallas_tpu.Buckets(128, 3)
  tiles = pallas_tpu.Tiles(32, 256, 128, 2)
  x_BD, w_FD, b_F = _integers(np.random.default_rng(0), rows, LATENTS, d_model)
  x_BD[5, 7] = np.nan
  b_F[200] = b_F[201] = 1e4
  b_F[200 + 128] = np.nan
  # Leaves two latents of these buckets, fewer than are kept.
  latent_F = np.arange(LATENTS)
  b_F[(latent_F >= 256) & (latent_F % 128 < 16)] = -np.inf
  select = functools.partial(pallas_tpu._select, buckets=buckets, tiles=tiles)
  found = jax.jit(select)(
    jnp.asarray(x_BD, dtype), jnp.asarray(w_FD, dtype), jnp.asarray(b_F)
  )

  pre_BF = x_BD @ w_FD.T + b_F
  pre_BF = np.where(np.isnan(pre_BF), np.inf, pre_BF)
  pre_BF = np.maximum(pre_BF, np.finfo(np.float32).min)
  pre_BF = np.pad(pre_BF, ((0, 0), (0, 52)), constant_values=-np.inf)
  pre_BLT = pre_BF.reshape(rows, 9, 128).swapaxes(1, 2)
  tile_BLT = _first(pre_BLT, 9)
  sorted_BLT = np.take_along_axis(pre_BLT, tile_BLT, axis=2)
  values_BC, ids_BC, dropped_BL = map(np.asarray, found)
  for place in range(3):
    columns = slice(place * 128, place * 128 + 128)
    np.testing.assert_array_equal(values_BC[:, columns], sorted_BLT[..., place])
    np.testing.assert_array_equal(ids_BC[:, columns], tile_BLT[..., place])
  np.testing.assert_array_equal(dropped_BL, sorted_BLT[..., 3])


@jax.jit
def _both(x_BD, w_FD, b_F):
  found = api.topk_candidates(x_BD, w_FD, b_F, K, implementation="pallas_tpu")
  certified = found.certified(found.values_BK[:, -1])
  again = ops.topk_encode(x_BD, w_FD, b_F, K, implementation="pallas_tpu")
  return found, certified, again


def _case(name):
  rng = np.random.default_rng(1)
  x_BD = rng.normal(size=(ROWS, D_MODEL)).astype(np.float32)
  w_FD = rng.normal(size=(LATENTS, D_MODEL)).astype(np.float32)
  b_F = 0.1 * rng.normal(size=LATENTS).astype(np.float32)
  match name:
    case "crowded":  # 9 latents of one bucket are above all others
      b_F[3::128] += 100
    case "ties":
      x_BD, w_FD, b_F = _integers(rng, ROWS, LATENTS, D_MODEL)
      w_FD[:, 4:] = 0
    case "negative":
      b_F -= 1000
    case "few_allowed":
      b_F[np.arange(LATENTS) % 600 != 7] = -np.inf  # leaves 2 < K
    case "nan_row":
      x_BD[3, 1] = np.nan
    case "infinite_row":
      x_BD[3, 1:3] = np.inf, -np.inf
    case "nan_latent":
      w_FD[700] = -np.nan
  return tuple(map(jnp.asarray, (x_BD, w_FD, b_F)))


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_certified_is_done_again(name):
  x_BD, w_FD, b_F = _case(name)
  found, certified, (values_BK, indices_BK) = _both(x_BD, w_FD, b_F)
  expected = reference.candidates(x_BD, w_FD, b_F, K)
  assert found.bound_B is not None, "the shape has become too small"
  assert certified == (name in ("normal", "negative", "few_allowed"))
  np.testing.assert_array_equal(indices_BK, expected.indices_BK)
  # Two sums of 16 products of size ~1, and of a bias of at most 1000.
  np.testing.assert_allclose(
    values_BK, expected.values_BK, rtol=2**-22, atol=16 * 2**-22
  )
  # Latents are distinct even where fewer than K have a value.
  assert (np.diff(np.sort(found.indices_BK, axis=1)) > 0).all()
  assert (np.asarray(found.indices_BK) < LATENTS).all()


def test_equal_candidates_come_in_order_of_latent():
  found, _, _ = _both(*_case("ties"))
  values_BK, indices_BK = map(np.asarray, (found.values_BK, found.indices_BK))
  equal = values_BK[:, 1:] == values_BK[:, :-1]
  assert equal.sum() > ROWS
  assert (np.diff(indices_BK, axis=1) > 0)[equal].all()


def test_buckets_are_chosen_by_their_odds():
  # The union bound, rows · L · P(Binomial(K, 1/L) > K'), is at most 1e-3.
  for rows, k, latents in ((2048, 32, 16384), (8192, 64, 8192), (64, 1, 4096)):
    chosen = pallas_tpu.choose_buckets(rows, k, latents)
    p, tail = 1 / chosen.count, 1.0
    term = (1 - p) ** k
    for n in range(chosen.kept + 1):
      tail -= term
      term *= (k - n) / (n + 1) * p / (1 - p)
    # `tail` is a difference of numbers near 1, exact to some 1e-15.
    assert rows * chosen.count * (tail - 1e-14) <= 1e-3
    assert k <= chosen.kept * chosen.count <= latents / 2
  # More than buckets would keep, or so few latents that all would be kept.
  assert pallas_tpu.choose_buckets(8192, 4096, 8192) is None
  assert pallas_tpu.choose_buckets(8192, 64, 1024) is None


@pytest.mark.parametrize("chip", tpu_chips.CHIPS, ids=lambda c: c.name)
def test_tiles_fit_every_chip(chip):
  for rows, latents, d_model in (
    (16, 1100, 7),
    (2048, 16384, 576),
    (8192, 8192, 4096),
    (8192, 32768, 4096),
    (65536, 1 << 20, 1536),
    (8192, 65536, 16384),
  ):
    buckets = pallas_tpu.choose_buckets(rows, 8, latents)
    for item_bytes in (2, 4):
      tiles = pallas_tpu.choose_tiles(
        chip, rows, latents, d_model, item_bytes, buckets
      )
      used = pallas_tpu._step_bytes(tiles, buckets, item_bytes)
      assert used <= chip.kernel_vmem_bytes
      assert d_model % tiles.inner == 0
      assert tiles.latents % buckets.count == 0


@pytest.mark.parametrize("chip", tpu_chips.CHIPS, ids=lambda c: c.name)
def test_chips_are_as_pallas_has_them(chip):
  version = {"v7x": "7x"}.get(chip.name, chip.name)
  info = pltpu.get_tpu_info_for_chip(pltpu.ChipVersion(version), 1)
  assert chip.vmem_bytes == info.vmem_capacity_bytes
  assert chip.smem_bytes == info.smem_capacity_bytes
  assert (chip.mxu_size, chip.mxus) == (info.mxu_column_size, info.num_mxus)
  assert chip.flops_per_s == info.bf16_ops_per_second
  assert chip.hbm_bytes == info.hbm_capacity_bytes
  assert chip.hbm_bytes_per_s == info.mem_bw_bytes_per_second


def test_the_target_decides_whether_kernels_are_compiled():
  seen = []

  @jax.jit
  def trace(x):
    seen.append((dispatch.interpret(), dispatch.target().platform))
    return x

  trace(1.0)
  with dispatch.compiled_kernels():
    trace(1.0)
  trace(1.0)
  assert seen == [(True, "cpu"), (False, "")]
  with dispatch.compiled_kernels(jax.devices()[1]):
    assert dispatch.target().platform == "cpu"
    assert not dispatch.interpret()
  assert tpu_chips.target().name == "v4"
  lite = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
  assert tpu_chips.of_device(lite) == tpu_chips.V5E
  both_cores = jax.sharding.AbstractDevice("TPU v5", 2, "tpu")
  assert tpu_chips.of_device(both_cores).cores == 2
  assert dispatch.for_platform("tpu") == "pallas_tpu"
  assert "pallas_tpu" in api.IMPLEMENTATIONS


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "dtype"),
  [(name, "float32") for name in [*sorted(specs.TEST), "wide"]]
  + [("two_level", "bfloat16"), ("wide", "bfloat16")],
)
def test_every_spec_is_the_reference(name, dtype):
  spec = specs.TEST.get(name, specs.Spec(33, 48, 4000, 20))
  inputs = specs.make_inputs(spec)
  arrays = (
    jnp.asarray(inputs.x_BD, dtype),
    jnp.asarray(inputs.w_enc_FD, dtype),
    jnp.asarray(inputs.b_enc_F, "float32"),
  )
  values_BK, indices_BK = ops.topk_encode(
    *arrays, spec.k, implementation="pallas_tpu"
  )
  expected = reference.candidates(*arrays, spec.k)
  np.testing.assert_array_equal(indices_BK, expected.indices_BK)
  # As in `test_topk_encode`: (D + 1) · eps · (Σ|x||w| + |b|), here at most.
  x_BD, w_FD, b_F = (np.abs(np.asarray(a, np.float64)) for a in arrays)
  bound = 2 * (spec.d_model + 1) * 2**-23 * (x_BD @ w_FD.T + b_F).max()
  np.testing.assert_allclose(values_BK, expected.values_BK, rtol=0, atol=bound)


@pytest.mark.slow
def test_gradient_is_dense_autograd_s():
  arrays = _case("crowded")
  weight_BK = jnp.asarray(np.random.default_rng(2).normal(size=(ROWS, K)))

  def sparse(*arrays):
    values_BK, _ = ops.topk_encode(*arrays, K, implementation="pallas_tpu")
    return jnp.sum(weight_BK * values_BK)

  def dense(x_BD, w_FD, b_F):
    values_BK, _ = lax.top_k(reference.pre_activations(x_BD, w_FD, b_F), K)
    return jnp.sum(weight_BK * values_BK)

  found = jax.jit(jax.grad(sparse, (0, 1, 2)))(*arrays)
  expected = jax.jit(jax.grad(dense, (0, 1, 2)))(*arrays)
  for a, b in zip(found, expected, strict=True):
    # Sums of at most 24 products of size ~4 in either order.
    np.testing.assert_allclose(a, b, rtol=0, atol=24 * 4 * 2**-23)


SHARDED = specs.Spec(16, 8, 8 * 768, 4)


@functools.cache
def _on_8_shards(implementation):
  loss_spec = losses.LossSpec(
    k=SHARDED.k,
    aux_k=1,
    aux_coefficient=0.0,
    implementation=implementation,
    latent_axis="latent",
  )
  latents = jax.P("latent", None)
  params_specs = sae.Params(latents, latents, jax.P("latent"), jax.P())

  def on_a_shard(params, x_BD, dead_F):
    loss, report, grads = losses.loss_and_grads(
      params, x_BD, dead_F, jnp.float32(3.7), loss_spec
    )
    return loss, report.redone, grads

  return jax.jit(
    jax.shard_map(
      on_a_shard,
      mesh=mesh.make(mesh.MeshConfig(latent=8)),
      in_specs=(params_specs, jax.P(), jax.P("latent")),
      out_specs=(jax.P(), jax.P(), params_specs),
      check_vma=False,
    )
  )


@pytest.mark.slow
@pytest.mark.parametrize("crowded", [False, True])
def test_shards_agree_on_what_is_done_again(crowded):
  # Of 8 shards the last alone is crowded; all have to take the exact branch.
  inputs = specs.make_inputs(SHARDED)
  if crowded:
    inputs.b_enc_F[7 * 768 + 3 :: 128] += 100
  arrays = inputs.w_enc_FD, inputs.w_dec_FD, inputs.b_enc_F, inputs.b_dec_D
  params = sae.Params(*(jnp.asarray(a, "float32") for a in arrays))
  x_BD = jnp.asarray(inputs.x_BD, "float32")
  dead_F = jnp.zeros(SHARDED.latents, bool)

  loss, redone, grads = _on_8_shards("pallas_tpu")(params, x_BD, dead_F)
  expected, never, expected_grads = _on_8_shards("cpu")(params, x_BD, dead_F)
  assert (redone, never) == (crowded, 0)
  # The same winners; sums of some 100 terms in another order.
  np.testing.assert_allclose(loss, expected, rtol=100 * 2**-24)
  for a, b in zip(
    jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True
  ):
    scale = float(jnp.abs(b).max())
    np.testing.assert_allclose(a, b, rtol=0, atol=100 * 2**-24 * scale)
