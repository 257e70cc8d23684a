# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The GPU's top-k: its fold and finish, its kernel interpreted and lowered.

Specs are too small for a real choice of buckets, which would send them down
the exact path; `small_buckets` makes the fold run, and miss, on them.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

# Public, as plgpu.InterpretGPUParams, only from jax 0.12 on.
from jax._src.pallas.mosaic_gpu.interpret import params as interpret_params

from sae_jax import errors, mesh, ops
from sae_jax.ops import specs
from sae_jax.ops.topk_encode import api, buckets, pallas_gpu

real_shape = pallas_gpu.shape

# (places, buckets): 1024 latents leave 8 tiles, 320 leave 3.
SHAPE = (2, 128)


@pytest.fixture(autouse=True, scope="module")
def small_buckets():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pallas_gpu, "shape", lambda *_: SHAPE)
    # The shape is a constant of what was traced.
    ops.topk_encode.clear_cache()
    yield
  ops.topk_encode.clear_cache()


def _arrays(spec, dtype="float32"):
  inputs = specs.make_inputs(spec)
  return (
    jnp.asarray(inputs.x_BD, dtype),
    jnp.asarray(inputs.w_enc_FD, dtype),
    jnp.asarray(inputs.b_enc_F, "float32"),
  )


def _encode(arrays, k, implementation="pallas_gpu", **kwargs):
  values_BK, indices_BK = ops.topk_encode(
    *arrays, k, implementation=implementation, **kwargs
  )
  return np.asarray(values_BK), np.asarray(indices_BK)


@pytest.mark.parametrize(
  ("name", "dtype"),
  [
    ("two_level", "bfloat16"),
    ("padded_groups", "float32"),  # 1001 latents: 23 of padding
    ("ties", "float32"),
    ("negative", "float32"),  # 320 latents, 3 tiles: nothing is left to loop
    ("one_latent_wins", "float32"),
  ],
)
def test_selects_what_the_exact_path_selects(name, dtype):
  spec = specs.TEST[name]
  arrays = _arrays(spec, dtype)
  values_BK, indices_BK = _encode(arrays, spec.k)
  expected_BK, expected_indices_BK = _encode(arrays, spec.k, "reference")
  # The same products, but the compiler may add up D terms in another order.
  scale = np.abs(arrays[0]).max() * np.abs(arrays[1]).max() * spec.d_model
  bound = 2 * (spec.d_model + 1) * 2**-24 * float(scale)
  np.testing.assert_allclose(values_BK, expected_BK, rtol=0, atol=bound)
  if name in ("ties", "all_equal"):  # exact: so is the order of ties
    np.testing.assert_array_equal(indices_BK, expected_indices_BK)
  apart_BK = np.abs(np.diff(expected_BK, axis=1)) > bound
  clear_B = apart_BK.all(1)
  same_B = (indices_BK == expected_indices_BK).all(1)
  assert same_B[clear_B].all()


_best_of_buckets = jax.jit(pallas_gpu.best_of_buckets, static_argnums=(2, 3))


@functools.partial(jax.jit, static_argnames="k")
def _found(x_BD, w_FD, b_F, k=4):
  """The first attempt, and whether it is certified."""
  found = api.topk_candidates(x_BD, w_FD, b_F, k, implementation="pallas_gpu")
  return found, found.certified(found.values_BK[:, -1])


def _pool(rng, shape, *, bad=()):
  values = [-np.inf, -1, 0, 0, 1, 1, 2, 3, *bad]
  return rng.choice(np.array(values, np.float32), size=shape)


@pytest.mark.parametrize("kept", [2, 5])
def test_keeps_the_best_of_every_bucket_and_bounds_the_rest(kept):
  rng = np.random.default_rng(kept)
  count, tiles, lanes = 40, 11, 128
  pre_BF = rng.normal(size=(count, tiles * lanes)).astype(np.float32)
  pre_BF[20:] = _pool(rng, pre_BF[20:].shape)
  keys_BC, latents_BC, dropped_BL = map(
    np.asarray,
    _best_of_buckets(
      jnp.asarray(pre_BF), jnp.zeros(tiles * lanes), kept, lanes
    ),
  )
  # A stable sort: equal values stay in the order of their tiles.
  pre_BTL = pre_BF.reshape(count, tiles, lanes)
  order_BTL = np.argsort(-pre_BTL, axis=1, kind="stable")
  sorted_BTL = np.take_along_axis(pre_BTL, order_BTL, 1)
  expected_BC = order_BTL[:, :kept] * lanes + np.arange(lanes)
  np.testing.assert_array_equal(latents_BC, expected_BC.reshape(count, -1))
  np.testing.assert_array_equal(
    -keys_BC, sorted_BTL[:, :kept].reshape(count, -1)
  )
  np.testing.assert_array_equal(dropped_BL, sorted_BTL[:, kept])


def test_finish_orders_ties_by_latent():
  rng = np.random.default_rng(0)
  values_BC = _pool(rng, (30, 64))
  latents_BC = np.stack([rng.permutation(500)[:64] for _ in range(30)])
  found = buckets.finish(
    jnp.asarray(-values_BC),
    jnp.asarray(latents_BC, jnp.uint32),
    jnp.zeros((30, 8)),
    20,
  )
  order_BC = np.lexsort((latents_BC, -values_BC), axis=1)[:, :20]
  np.testing.assert_array_equal(
    found.indices_BK, np.take_along_axis(latents_BC, order_BC, 1)
  )
  np.testing.assert_array_equal(
    found.values_BK, np.take_along_axis(values_BC, order_BC, 1)
  )


def _planted(winners):
  """One row; its 4 winners are the latents `winners`, of 1024."""
  w_FD = (
    jnp.full((1024, 1), -1.0)
    .at[jnp.asarray(winners), 0]
    .set(jnp.arange(len(winners), 0.0, -1))
  )
  return jnp.ones((1, 1)), w_FD, jnp.zeros(1024)


def test_winners_that_share_a_bucket_are_not_certified():
  # Two places a bucket: three winners in bucket 5 are one too many, though
  # the fourth winner's bucket has room.
  for winners, expected in [
    ((5, 133, 700, 9), True),
    ((9, 900, 133, 5), True),
    ((5, 133, 261, 9), False),
  ]:
    arrays = _planted(winners)
    found, certified = _found(*arrays)
    assert bool(certified) == expected
    _, indices_BK = _encode(arrays, 4)
    np.testing.assert_array_equal(indices_BK, [winners])
  assert float(found.bound_B[0]) == 2.0  # the third of 4, 3, 2, 1


def test_a_dropped_latent_that_ties_is_not_certified():
  x_BD, w_FD, b_F = _planted((5, 133, 700, 9))
  assert _found(x_BD, w_FD, b_F)[1]
  w_FD = w_FD.at[261].set(1.0)  # ties with latent 9, which is the lower one
  assert not _found(x_BD, w_FD, b_F)[1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [3, 900])
def test_what_is_not_finite_is_not_certified(bad, place):
  # Latent 3 is among the first tiles, which fill the places; 900 is not.
  x_BD, w_FD, b_F = _planted((5, 133, 700, 9))
  w_FD = w_FD.at[place].set(bad)
  found, certified = _found(x_BD, w_FD, b_F)
  assert found.values_BK[0, 0] == np.inf
  assert not certified
  values_BK, indices_BK = _encode((x_BD, w_FD, b_F), 4)
  assert indices_BK[0, 0] == place
  np.testing.assert_equal(values_BK[0, 0], np.float32(bad))


def test_masked_latents_are_left_out():
  spec = specs.TEST["padded_groups"]
  arrays = _arrays(spec)
  mask_F = jnp.arange(spec.latents) % 9 == 4
  _, indices_BK = _encode(arrays, 3, mask_F=mask_F)
  assert (indices_BK % 9 == 4).all()
  # Fewer allowed than wanted: -inf fills up, named as the exact path names it.
  mask_F = jnp.arange(spec.latents) >= spec.latents - 2
  found = _encode(arrays, 3, mask_F=mask_F)
  expected = _encode(arrays, 3, "reference", mask_F=mask_F)
  np.testing.assert_array_equal(found[1], expected[1])
  assert (found[0][:, 2] == -np.inf).all()


def test_shards_find_what_one_device_finds():
  spec = specs.TEST["two_level"]
  arrays = _arrays(spec)
  on = mesh.make(mesh.MeshConfig(latent=2), jax.devices()[:2])
  latents = jax.P("latent", None)
  found_BC = jax.jit(
    jax.shard_map(
      lambda *shard: ops.topk_encode(
        *shard, spec.k, implementation="pallas_gpu"
      )[0],
      mesh=on,
      in_specs=(jax.P(), latents, jax.P("latent")),
      out_specs=jax.P(None, "latent"),
      check_vma=False,
    )
  )(*arrays)
  best_BK = lax.top_k(found_BC, spec.k)[0]
  expected_BK, _ = _encode(arrays, spec.k, "reference")
  # As in test_selects_what_the_exact_path_selects: D = 16 terms.
  np.testing.assert_allclose(best_BK, expected_BK, rtol=1e-5, atol=1e-5)


def test_the_kernel_interpreted_is_the_fold():
  kept, lanes, tiles = 2, 1024, 8
  # 1024 lanes are two blocks per row; 8 tiles are 2 that fill the places, 2
  # ahead of the loop and 4 that its unrolled body takes.
  rng = np.random.default_rng(0)
  product_BF = jnp.asarray(_pool(rng, (2, tiles * lanes), bad=[np.nan]))
  product_BF = product_BF.at[0].set(rng.normal(size=tiles * lanes))
  b_F = jnp.asarray(rng.normal(size=tiles * lanes), jnp.float32)
  kernel = functools.partial(
    pallas_gpu.fold_kernel,
    lanes_L=np.arange(lanes, dtype=np.uint32),
    kept=kept,
    interpret=interpret_params.InterpretGPUParams(),
  )
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.jit(kernel)(product_BF, b_F),
    _best_of_buckets(product_BF, b_F, kept, lanes),
  )


def test_gpus_get_the_kernel_and_cpus_do_not():
  arrays = _arrays(specs.Spec(8, 4, 4096, 4))
  encode = jax.jit(
    lambda *arrays: ops.topk_encode(*arrays, 4, implementation="pallas_gpu")
  ).trace(*arrays)
  on_gpu = encode.lower(lowering_platforms=("cuda",)).as_text()
  assert "mosaic_gpu" in on_gpu
  assert pallas_gpu.NAME in on_gpu
  assert "mosaic_gpu" not in encode.lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.parametrize("capability", ["8.0", "gfx942"])
def test_gpus_that_mosaic_cannot_compile_for_are_refused(
  monkeypatch, capability
):
  gpu = types.SimpleNamespace(
    platform="gpu", device_kind="a GPU", compute_capability=capability
  )
  monkeypatch.setattr(jax, "devices", lambda: [gpu])
  arrays = _arrays(specs.TEST["odd"])
  with pytest.raises(errors.InputError, match=f"a GPU has {capability}"):
    pallas_gpu.candidates(*arrays, 5)


def test_shapes_hold_the_winners_and_beat_a_sort():
  for k, rows, latents in [
    (32, 2048, 16384),
    (64, 8192, 131072),
    (64, 8192, 128 * 193),  # 128 buckets, or the encoder would be padded
    (8, 37, 8192),
    (100, 65536, 1 << 20),
  ]:
    kept, count = real_shape(k, rows, latents)
    assert k <= kept * count <= latents // 4
    assert buckets.odds(k, rows, kept, count) <= buckets.ODDS
    assert latents % count == 0
  assert real_shape(5, 13, 37) is None
  assert real_shape(2000, 512, 16384) is None


def test_odds_are_those_of_balls_in_bins():
  rng = np.random.default_rng(0)
  trials, k, count, kept = 20_000, 8, 32, 2
  bins_TK = rng.integers(0, count, size=(trials, k))
  most_T = np.array([np.bincount(row).max() for row in bins_TK])
  rate = (most_T > kept).mean()
  error = 4 * np.sqrt(rate / trials)  # four standard deviations
  bound = buckets.odds(k, 1, kept, count)
  # Above by what two crowded buckets count twice, a few per cent here.
  assert rate - error <= bound <= 1.1 * rate + error
