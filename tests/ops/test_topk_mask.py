# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The mask of the k largest is that of `lax.top_k`, on any number of shards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sae_jax import mesh
from sae_jax.ops import topk_mask

ROWS, COLUMNS = 40, 64


def _rows():
  """Random rows; few distinct values with infinities, zeros of both signs."""
  rng = np.random.default_rng(0)
  x_RC = rng.normal(size=(ROWS, COLUMNS)).astype(np.float32)
  pool = np.array([-np.inf, -1.5, -0.0, 0, 0.25, 1, np.inf, np.nan], np.float32)
  x_RC[10:30] = pool[rng.integers(0, len(pool), size=(20, COLUMNS))]
  x_RC[30:35] = -np.inf
  x_RC[35:] = 2
  return jnp.asarray(x_RC)


def _expected(x_RC, k):
  _, place_RK = lax.top_k(x_RC, k)
  mask_RC = np.zeros(x_RC.shape, bool)
  mask_RC[np.arange(len(x_RC))[:, None], np.asarray(place_RK)] = True
  return mask_RC


@pytest.mark.parametrize("k", [1, 7, 63, 64])
@pytest.mark.parametrize("shards", [1, 4])
def test_it_is_the_choice_of_top_k(k, shards):
  x_RC = _rows()
  if shards == 1:
    mask_RC = topk_mask.topk_mask(x_RC, k)
  else:
    on = mesh.make(mesh.MeshConfig(latent=shards), jax.devices()[:shards])
    columns = jax.P(None, "latent")
    mask_RC = jax.shard_map(
      functools.partial(topk_mask.topk_mask, k=k, axis_name="latent"),
      mesh=on,
      in_specs=columns,
      out_specs=columns,
      check_vma=False,
    )(x_RC)
  np.testing.assert_array_equal(mask_RC, _expected(x_RC, k))


def test_it_is_exact_in_float64():
  with jax.enable_x64(True):
    # Differ in the last bit only, which float32 does not hold.
    x_RC = 1 + jnp.arange(8.0)[None] * 2.0**-52
    mask_RC = topk_mask.topk_mask(x_RC, 3)
  np.testing.assert_array_equal(mask_RC, [[0, 0, 0, 0, 0, 1, 1, 1]])
