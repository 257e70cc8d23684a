# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Fidelity equals the textbook formulas in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from evaluation_data import HOOK, make_sae, make_store

from sae_jax import errors, sae, store
from sae_jax import mesh as mesh_lib
from sae_jax.evaluate import fidelity

D, F, K, ROWS = 12, 40, 5, 150


@pytest.fixture
def data(tmp_path):
  rng = np.random.default_rng(1)
  # A mean far from zero shows any error in the centring.
  x_ND = rng.normal(size=(ROWS, D)) + 30
  documents = [rng.integers(0, 50, 15) for _ in range(10)]
  return make_store(tmp_path / "store", documents, x_ND)


def oracle(dictionary, x_ND):
  """Everything dense, in float64."""
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), dictionary.params)
  pre_NF = (x_ND - p.b_dec_D) @ p.w_enc_FD.T + p.b_enc_F
  cut_N1 = -np.sort(-pre_NF, axis=1)[:, dictionary.k - 1 : dictionary.k]
  f_NF = np.where(pre_NF >= cut_N1, np.maximum(pre_NF, 0), 0)
  x_hat_ND = f_NF @ p.w_dec_FD + p.b_dec_D
  error = np.sum((x_ND - x_hat_ND) ** 2)
  norms = np.linalg.norm(x_ND, axis=1), np.linalg.norm(x_hat_ND, axis=1)
  return {
    "fvu": error / np.sum((x_ND - x_ND.mean(0)) ** 2),
    "mse": error / x_ND.size,
    "cosine": np.mean(np.sum(x_ND * x_hat_ND, 1) / (norms[0] * norms[1])),
    "norm_ratio": np.mean(norms[1] / norms[0]),
    "l0": np.mean(np.sum(f_NF > 0, 1)),
    "dead_frac": np.mean(np.sum(f_NF, 0) == 0),
    "fires_F": np.sum(f_NF > 0, 0),
    "mean_F": f_NF.sum(0) / np.maximum(1, np.sum(f_NF > 0, 0)),
    "max_F": f_NF.max(0),
  }


def rows_of(source, start=0, stop=None):
  x_ND = source.read(HOOK, start, source.rows if stop is None else stop)
  return x_ND.astype(np.float64)


def check(measured, wanted):
  # Rows are float32 sums of D or F terms around 30: c·sqrt(F)·eps·(x/σ).
  tolerance = 4 * np.sqrt(F) * np.finfo(np.float32).eps * 30
  for name, value in wanted.items():
    np.testing.assert_allclose(
      getattr(measured, name), value, rtol=tolerance, err_msg=name
    )


@pytest.mark.parametrize("batch_rows", [1, 48, 4096])
def test_equals_dense_float64_formulas(data, small_mesh, batch_rows):
  dictionary = make_sae(F, D, K, center=30)
  measured = fidelity.measure(
    dictionary,
    data,
    HOOK,
    range(data.num_chunks),
    mesh=small_mesh,
    batch_rows=batch_rows,
  )
  wanted = oracle(dictionary, rows_of(data))
  assert measured.rows == ROWS
  assert 0 < wanted["dead_frac"] < 1 and wanted["l0"] < K
  check(measured, wanted)
  np.testing.assert_array_equal(measured.density_F, wanted["fires_F"] / ROWS)


@pytest.mark.parametrize("axes", [(1, 8, 1), (2, 2, 2), (1, 1, 8), (8, 1, 1)])
def test_every_mesh_gives_the_same(data, axes):
  mesh = mesh_lib.make(
    mesh_lib.MeshConfig(sae=axes[0], data=axes[1], latent=axes[2])
  )
  dictionary = make_sae(F, D, K, center=30)
  measured = fidelity.measure(
    dictionary, data, HOOK, range(data.num_chunks), mesh=mesh, batch_rows=48
  )
  check(measured, oracle(dictionary, rows_of(data)))


def test_more_active_latents_than_a_shard_holds(data):
  mesh = mesh_lib.make(mesh_lib.MeshConfig(latent=8))
  dictionary = make_sae(F, D, 11, center=30)  # a shard has 5 latents
  measured = fidelity.measure(
    dictionary, data, HOOK, range(data.num_chunks), mesh=mesh
  )
  check(measured, oracle(dictionary, rows_of(data)))


def test_only_the_asked_chunks_are_measured(data, small_mesh):
  dictionary = make_sae(F, D, K, center=30)
  measured = fidelity.measure(
    dictionary, data, HOOK, range(4, 8), mesh=small_mesh, batch_rows=32
  )
  assert measured.rows == 64
  check(measured, oracle(dictionary, rows_of(data, 64, 128)))


def test_totals_survive_many_flushes(data, small_mesh, monkeypatch):
  monkeypatch.setattr(fidelity, "_BATCHES_PER_FLUSH", 2)
  dictionary = make_sae(F, D, K, center=30)
  measured = fidelity.measure(
    dictionary,
    data,
    HOOK,
    range(data.num_chunks),
    mesh=small_mesh,
    batch_rows=16,
  )
  check(measured, oracle(dictionary, rows_of(data)))


def test_the_mean_of_the_store_explains_nothing(data, small_mesh):
  dictionary = make_sae(F, D, K, center=30)
  params = dataclasses.replace(
    dictionary.params,
    w_dec_FD=np.zeros((F, D), np.float32),
    b_dec_D=rows_of(data).mean(0).astype(np.float32),
  )
  measured = fidelity.measure(
    dataclasses.replace(dictionary, params=params),
    data,
    HOOK,
    range(data.num_chunks),
    mesh=small_mesh,
  )
  assert measured.fvu == pytest.approx(1, abs=1e-5)


def test_a_row_of_zeros_has_no_direction(tmp_path, small_mesh):
  x_ND = np.random.default_rng(0).normal(size=(32, D))
  x_ND[3] = 0
  source = make_store(tmp_path / "s", None, x_ND.astype(ml_dtypes.bfloat16))
  measured = fidelity.measure(
    make_sae(F, D, K, center=30), source, HOOK, range(2), mesh=small_mesh
  )
  assert np.isfinite([measured.cosine, measured.norm_ratio]).all()


@pytest.mark.parametrize(
  ("chunks", "message"),
  [(range(0), "non-empty"), (range(0, 99), "read chunks 0..9")],
)
def test_wrong_chunks_are_refused(data, small_mesh, chunks, message):
  with pytest.raises(errors.InputError, match=message):
    fidelity.measure(
      make_sae(F, D, K, center=30), data, HOOK, chunks, mesh=small_mesh
    )


def test_a_dictionary_of_another_width_is_refused(data, small_mesh):
  with pytest.raises(errors.InputError, match="7 wide"):
    fidelity.measure(make_sae(F, 7, K), data, HOOK, range(2), mesh=small_mesh)


def test_latents_that_do_not_split_are_refused(data):
  mesh = mesh_lib.make(mesh_lib.MeshConfig(latent=8))
  with pytest.raises(errors.InputError, match="latents, which do not split"):
    fidelity.measure(make_sae(41, D, K), data, HOOK, range(2), mesh=mesh)


@pytest.mark.parametrize("broken", ["weight", "equal"])
def test_numbers_that_mean_nothing_are_refused(tmp_path, small_mesh, broken):
  x_ND = np.ones((32, D))
  if broken == "weight":
    x_ND = np.random.default_rng(0).normal(size=(32, D))
  source = make_store(tmp_path / "s", None, x_ND)
  dictionary = make_sae(F, D, K, center=30)
  if broken == "weight":
    dictionary.params.b_dec_D[2] = np.nan
  with pytest.raises(errors.InputError, match="not finite"):
    fidelity.measure(dictionary, source, HOOK, range(2), mesh=small_mesh)


def test_a_transcoder_is_measured_on_its_targets(tmp_path, small_mesh):
  rng = np.random.default_rng(4)
  target, width = "blocks.1.hook_mlp_out", 9
  x_ND = rng.normal(size=(ROWS, D))
  y_NE = x_ND @ rng.normal(size=(D, width)) + 30
  path = tmp_path / "pair"
  store.write_arrays(
    path, {HOOK: x_ND, target: y_NE}, read_rows=16, write_rows=64
  )
  source = store.open_store(path)
  params = dataclasses.replace(
    make_sae(F, D, K).params,
    w_dec_FD=rng.normal(size=(F, width)).astype(np.float32),
    b_dec_D=np.full(width, 30, np.float32),
    w_skip_DE=rng.normal(size=(D, width)).astype(np.float32),
  )
  dictionary = sae.make_sae(params, K, centred=False)
  measured = fidelity.measure(
    dictionary,
    source,
    HOOK,
    range(source.num_chunks),
    mesh=small_mesh,
    target=target,
    batch_rows=32,
  )
  x_ND, y_NE = (
    source.read(hook, 0, ROWS).astype(np.float64) for hook in (HOOK, target)
  )
  p = jax.tree.map(np.float64, params)
  pre_NF = x_ND @ p.w_enc_FD.T + p.b_enc_F
  cut_N1 = np.sort(pre_NF, axis=1)[:, -K][:, None]
  f_NF = np.where(pre_NF >= cut_N1, np.maximum(pre_NF, 0), 0)
  y_hat_NE = f_NF @ p.w_dec_FD + p.b_dec_D + x_ND @ p.w_skip_DE
  error = np.sum((y_NE - y_hat_NE) ** 2)
  norms = np.linalg.norm(y_NE, axis=1), np.linalg.norm(y_hat_NE, axis=1)
  check(
    measured,
    {
      "fvu": error / np.sum((y_NE - y_NE.mean(0)) ** 2),
      "mse": error / y_NE.size,
      "cosine": np.mean(np.sum(y_NE * y_hat_NE, 1) / (norms[0] * norms[1])),
      "norm_ratio": np.mean(norms[1] / norms[0]),
      "l0": np.mean(np.sum(f_NF > 0, 1)),
      "fires_F": np.sum(f_NF > 0, 0),
    },
  )
  with pytest.raises(errors.InputError, match="gives rows that are 9 wide"):
    fidelity.measure(
      dictionary, source, HOOK, range(source.num_chunks), mesh=small_mesh
    )


def test_a_crosscoder_is_measured_by_source(tmp_path):
  rng = np.random.default_rng(0)
  x_NMd = rng.normal(size=(64, 2, 6)) * [[[1.0], [3.0]]] + [[[1.0], [-2.0]]]
  for m, name in enumerate(("base", "tuned")):
    store.write_arrays(
      tmp_path / name,
      {"blocks.0.hook_resid_post": x_NMd[:, m]},
      documents=[np.arange(16)] * 4,
      read_rows=16,
      write_rows=32,
    )
  source = store.joined(
    [store.open_store(tmp_path / n) for n in ("base", "tuned")]
  )
  w_FD = rng.normal(size=(10, 12)).astype(np.float32) / 4
  params = sae.Params(w_FD, w_FD.copy(), np.zeros(10), np.ones(12))
  crosscoder = sae.make_sae(jax.tree.map(jnp.float32, params), 3, sources=2)
  found = fidelity.measure(
    crosscoder,
    source,
    source.hooks[0],
    range(source.num_chunks),
    mesh=mesh_lib.make(
      mesh_lib.MeshConfig(data=2, latent=2), jax.devices()[:4]
    ),
    batch_rows=32,
  )
  x_ND = source.read(source.hooks[0], 0, 64).astype(np.float64)
  made_ND = np.asarray(
    sae.decode(crosscoder, *sae.encode(crosscoder, jnp.float32(x_ND)))
  )
  for m in range(2):
    part = slice(6 * m, 6 * m + 6)
    x, made = x_ND[:, part], made_ND[:, part]
    wanted = np.sum((x - made) ** 2) / np.sum((x - x.mean(0)) ** 2)
    # sums of 384 float32 squares
    assert found.fvu_M[m] == pytest.approx(wanted, rel=1e-5)
