# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The approximate top-k: a choice by name, whose recall is measured."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, mesh, sae
from sae_jax.ops import specs
from sae_jax.ops.topk_encode import approx, candidates, xla
from sae_jax.sae import init, losses

SPEC = specs.TEST["two_level"]


def _reports(recall_target, shards=1):
  """The loss and its report, on a mesh of `shards` latent shards."""
  inputs = specs.make_inputs(SPEC)
  params = sae.Params(
    w_enc_FD=jnp.asarray(inputs.w_enc_FD, "float32"),
    w_dec_FD=jnp.asarray(inputs.w_dec_FD, "float32"),
    b_enc_F=jnp.asarray(inputs.b_enc_F, "float32"),
    b_dec_D=jnp.asarray(inputs.b_dec_D, "float32"),
  )
  spec = losses.LossSpec(
    k=SPEC.k,
    aux_k=4,
    aux_coefficient=0.0,
    implementation="cpu",
    recall_target=recall_target,
    latent_axis="latent" if shards > 1 else None,
  )
  on = mesh.make(mesh.MeshConfig(latent=shards), jax.devices()[:shards])
  by_params = jax.tree.map(lambda s: s.spec, init.params_sharding(on))

  def measure(params, x_BD):
    dead_F = jnp.zeros((params.latents,), bool)
    loss, report = losses.sae_loss(params, x_BD, dead_F, jnp.float32(1), spec)
    return loss, report.recall, report.l0

  run = jax.shard_map(
    measure,
    mesh=on,
    in_specs=(by_params, jax.P()),
    out_specs=jax.P(),
    check_vma=False,
  )
  return jax.jit(run)(params, jnp.asarray(inputs.x_BD, "float32"))


def _without_the_best(x_BD, w_enc_FD, b_enc_F, k, recall_target):
  """Finds places 2 to k + 1 of every row."""
  del recall_target
  found = xla.candidates(x_BD, w_enc_FD, b_enc_F, k + 1)
  return candidates.Candidates(found.values_BK[:, 1:], found.indices_BK[:, 1:])


def test_where_nothing_is_missed_it_is_the_exact_one():
  np.testing.assert_array_equal(_reports(0.9), _reports(None))
  assert _reports(0.9)[1] == 1


@pytest.mark.parametrize("shards", [1, 4])
def test_recall_counts_what_is_missed(monkeypatch, shards):
  monkeypatch.setattr(approx, "candidates", _without_the_best)
  jax.clear_caches()
  _, recall, _ = _reports(0.5, shards)
  rows = 16
  if shards == 1:
    assert recall == pytest.approx((SPEC.k - 1) / SPEC.k)
    return
  # A shard without winners has none to miss: count them with numpy.
  inputs = specs.make_inputs(SPEC)
  x_BD = (inputs.x_BD - inputs.b_dec_D)[:rows]
  pre_BF = x_BD @ inputs.w_enc_FD.T + inputs.b_enc_F
  parts = np.sort(pre_BF.reshape(rows, shards, -1), axis=2)[:, :, ::-1]
  found_BC = parts[:, :, 1 : SPEC.k + 1].reshape(rows, -1)
  chosen_BK = np.sort(found_BC, axis=1)[:, -SPEC.k :]
  kth_B1 = np.sort(pre_BF, axis=1)[:, -SPEC.k, None]
  assert recall == pytest.approx((chosen_BK >= kth_B1).mean())
  assert recall < (SPEC.k - 1) / SPEC.k


@pytest.mark.parametrize("wrong", [0.0, 1.0, -1.0, float("nan")])
def test_a_recall_that_is_none_is_refused(wrong):
  with pytest.raises(errors.InputError, match=r"sae\.recall_target"):
    sae.SaeConfig(latents=8, k=2, recall_target=wrong)


def test_it_chooses_by_rows_in_chunks(monkeypatch):
  inputs = specs.make_inputs(SPEC)
  monkeypatch.setattr(xla, "_CHUNK_ELEMENTS", 8 * SPEC.latents)
  arrays = (inputs.x_BD, inputs.w_enc_FD, inputs.b_enc_F)
  jaxpr = jax.make_jaxpr(
    functools.partial(approx.candidates, k=SPEC.k, recall_target=0.9)
  )(*(jnp.asarray(a, "float32") for a in arrays))
  assert f"[{SPEC.batch},{SPEC.latents}]" not in str(jaxpr)
