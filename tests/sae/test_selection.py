# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A shard offers few candidates; where they are too few the batch is redone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import mesh, sae
from sae_jax.ops import specs
from sae_jax.sae import init, losses, selection

SHARDS = 8
SPEC = specs.Spec(24, 16, 1024, 32)  # of 32 winners a shard has 4, give or take
LOSS = losses.LossSpec(
  k=SPEC.k,
  aux_k=4,
  aux_coefficient=0.0,
  implementation="cpu",
  latent_axis="latent",
)


def _problem(crowded=False):
  inputs = specs.make_inputs(SPEC)
  if crowded:
    inputs.b_enc_F[: SPEC.latents // SHARDS] += 100
  return inputs


@functools.cache
def _compiled():
  on = mesh.make(mesh.MeshConfig(latent=SHARDS), jax.devices()[:SHARDS])
  by_params = jax.tree.map(lambda s: s.spec, init.params_sharding(on))

  def select(params, x_BD, fewer):
    found = selection.select(params, x_BD, LOSS, fewer)
    first = jax.lax.axis_index("latent") * params.latents
    return found.values_BK, found.indices_BK + first, found.redone

  by_shard = jax.P(None, "latent")
  return jax.jit(
    jax.shard_map(
      select,
      mesh=on,
      in_specs=(by_params, jax.P(), jax.P()),
      out_specs=(by_shard, by_shard, jax.P()),
      check_vma=False,
    )
  )


def _select(inputs, fewer=SPEC.k):
  """Values [B, shards · K], latents, and whether it was done again."""
  params = sae.Params(
    *(
      jnp.asarray(a, "float32")
      for a in (
        inputs.w_enc_FD,
        inputs.w_dec_FD,
        inputs.b_enc_F,
        inputs.b_dec_D,
      )
    )
  )
  x_BD = jnp.asarray(inputs.x_BD, "float32")
  return map(np.asarray, _compiled()(params, x_BD, jnp.int32(fewer)))


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("fewer", [7, SPEC.k])
def test_the_best_of_all_shards_are_found(crowded, fewer):
  inputs = _problem(crowded)
  values_BC, latents_BC, redone = _select(inputs, fewer)
  # 7 of one shard are not more than it offers.
  assert redone == (crowded and fewer == SPEC.k)
  pre_BF = inputs.x_BD @ inputs.w_enc_FD.T + inputs.b_enc_F
  best_BK = np.argsort(-pre_BF, axis=1)[:, :fewer]
  assert ((values_BC > 0).sum(1) == fewer).all()
  found_BK = latents_BC[values_BC > 0].reshape(-1, fewer)
  np.testing.assert_array_equal(np.sort(found_BK), np.sort(best_BK))


def test_a_nan_is_not_lost_between_shards():
  inputs = _problem()
  inputs.x_BD[3, 1] = np.nan
  values_BC, _, redone = _select(inputs)
  assert redone == 1
  np.testing.assert_array_equal(np.flatnonzero(np.isnan(values_BC).any(1)), [3])
