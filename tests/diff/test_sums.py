# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Sums by group are those of float64, on any mesh, after any kill."""

import tracemalloc

import fake_evidence as fake
import ml_dtypes
import numpy as np
import pytest

from sae_jax import errors
from sae_jax.diff import sums

EPS = 2.0**-24  # of float32, in which activations are computed


def make_rows(rows=333, d_model=8, groups=7, seed=0):
  rng = np.random.default_rng(seed)
  x_ND = rng.standard_normal((rows, d_model)).astype(ml_dtypes.bfloat16)
  group_N = rng.integers(-1, groups, rows)  # -1: out of scope
  group_N[:groups] = np.arange(groups)
  return x_ND, group_N


def assert_sums(problem, found, x_ND, group_N):
  dictionary = problem.dictionary
  groups = problem.evidence.groups
  dense_NF = fake.dense(dictionary, x_ND)
  # Each activation is a dot product of D terms of size about 1 in float32.
  bound = 4 * (x_ND.shape[1] + 2) * EPS * np.abs(dense_NF).max()
  wanted_GF = fake.group_sums(dense_NF, group_N, groups)
  rows_G = np.bincount(group_N[group_N >= 0], minlength=groups)
  assert (np.abs(found.sums_GF - wanted_GF) <= bound * rows_G[:, None]).all()
  np.testing.assert_array_equal(
    found.fires_GF, fake.group_sums(dense_NF > 0, group_N, groups)
  )
  inside_NF = dense_NF[group_N >= 0]
  np.testing.assert_allclose(
    found.squares_F, (inside_NF**2).sum(0), rtol=1e-5, atol=1e-5
  )
  np.testing.assert_allclose(found.largest_F, inside_NF.max(0), atol=bound)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 4), (1, 8, 1), (2, 2, 2)])
def test_sums_are_those_of_float64_on_every_mesh(tmp_path, shape):
  x_ND, group_N = make_rows()
  problem = fake.make_problem(
    tmp_path / "work", {"base": x_ND}, group_N, mesh=fake.make_mesh(*shape)
  )
  assert_sums(problem, sums.latent_sums(problem, "base"), x_ND, group_N)
  x_GD = sums.activation_sums(problem, "base")
  exact_GD = fake.group_sums(x_ND.astype(np.float64), group_N, 7)
  size_GD = fake.group_sums(np.abs(x_ND.astype(np.float64)), group_N, 7)
  assert (np.abs(x_GD - exact_GD) <= 256 * EPS * size_GD).all()


@pytest.mark.parametrize("latents, k", [(1, 1), (6, 6)])
def test_every_latent_may_be_active(tmp_path, latents, k):
  x_ND, group_N = make_rows(rows=65)
  dictionary = fake.make_dictionary(latents=latents, k=k)
  problem = fake.make_problem(
    tmp_path / "work", {"base": x_ND}, group_N, dictionary=dictionary
  )
  assert_sums(problem, sums.latent_sums(problem, "base"), x_ND, group_N)


def test_one_group_and_fewer_rows_than_a_batch(tmp_path):
  x_ND, _ = make_rows(rows=5, groups=1)
  problem = fake.make_problem(tmp_path / "work", {"base": x_ND}, np.zeros(5))
  assert_sums(
    problem, sums.latent_sums(problem, "base"), x_ND, np.zeros(5, int)
  )


def test_chunks_lose_nothing_that_float32_would(tmp_path):
  # Beside 2³² float32 has steps of 512: it drops every later chunk of 256 ones.
  x_ND = np.ones((4096, 1), np.float32)
  x_ND[0] = 2.0**32
  problem = fake.make_problem(
    tmp_path / "work",
    {"base": x_ND},
    np.zeros(4096),
    dictionary=fake.make_dictionary(d_model=1),
    batch_rows=4096,
  )
  total = sums.activation_sums(problem, "base")[0, 0]
  # Only the 255 ones of the first chunk may be lost.
  assert 2**32 + 15 * 256 <= total <= 2**32 + 4095


class Killed(Exception):
  pass


def kill_after(problem, batches):
  """Makes the evidence stop, as a kill would, before one batch."""
  whole = problem.evidence.batches

  def cut(name, start=0):
    for batch in whole(name, start):
      if batch.index == batches:
        raise Killed
      yield batch

  problem.evidence.batches = cut
  return whole


@pytest.mark.parametrize("function", ["latent_sums", "activation_sums"])
def test_a_killed_sum_goes_on_and_ends_the_same(
  tmp_path, monkeypatch, function
):
  x_ND, group_N = make_rows()
  run = getattr(sums, function)
  straight = fake.make_problem(tmp_path / "a", {"base": x_ND}, group_N)
  wanted = run(straight, "base")
  monkeypatch.setattr(sums, "_SAVE_SECONDS", 0.0)
  problem = fake.make_problem(tmp_path / "b", {"base": x_ND}, group_N)
  whole = kill_after(problem, 4)
  with pytest.raises(Killed):
    run(problem, "base")
  started = []

  def watched(name, start=0):
    started.append(start)
    return whole(name, start)

  problem.evidence.batches = watched
  found = run(problem, "base")
  assert started == [3]  # the fourth was on its way
  run(problem, "base")
  assert started == [3]  # the second time it is read back
  if function == "latent_sums":
    for name in ("sums_GF", "fires_GF", "squares_F", "largest_F"):
      np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert [p.name for p in problem.work.iterdir()] == ["latents.base"]
  else:
    np.testing.assert_array_equal(found, wanted)
    assert [p.name for p in problem.work.iterdir()] == ["activations.base.npy"]


def test_work_in_progress_that_was_not_saved_is_begun_anew(tmp_path):
  x_ND, group_N = make_rows()
  problem = fake.make_problem(tmp_path / "work", {"base": x_ND}, group_N)
  whole = kill_after(problem, 4)
  with pytest.raises(Killed):
    sums.latent_sums(problem, "base")
  problem.evidence.batches = whole
  assert_sums(problem, sums.latent_sums(problem, "base"), x_ND, group_N)


@pytest.mark.parametrize("function", ["latent_sums", "activation_sums"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_activation_that_is_no_number_is_named(tmp_path, function, bad):
  x_ND, group_N = make_rows()
  x_ND[200, 3] = bad
  group_N[200] = 2
  problem = fake.make_problem(tmp_path / "work", {"base": x_ND}, group_N)
  with pytest.raises(errors.InputError, match=r"'base'.*/stores/base.*batch 3"):
    getattr(sums, function)(problem, "base")
  group_N[200] = -1  # out of scope it does not matter
  problem = fake.make_problem(tmp_path / "other", {"base": x_ND}, group_N)
  getattr(sums, function)(problem, "base")


def test_totals(tmp_path):
  x_ND, group_N = make_rows()
  problem = fake.make_problem(tmp_path / "work", {"base": x_ND}, group_N)
  found = sums.latent_sums(problem, "base")
  np.testing.assert_array_equal(
    sums.total(found.fires_GF), np.asarray(found.fires_GF).sum(0)
  )
  assert sums.total(found.sums_GF).dtype == np.float64


@pytest.mark.slow
def test_the_host_holds_batches_and_not_the_sums(tmp_path):
  latents, groups, rows = 100_000, 64, 1024
  rng = np.random.default_rng(0)
  problem = fake.make_problem(
    tmp_path / "work",
    {"base": rng.standard_normal((rows, 4))},
    rng.integers(0, groups, rows),
    dictionary=fake.make_dictionary(latents=latents, d_model=4, k=16),
    batch_rows=512,
  )
  tracemalloc.start()
  found = sums.latent_sums(problem, "base")
  share_F = sums.total(found.fires_GF) / rows
  top = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert share_F.sum() == pytest.approx(16, rel=0.5)
  files = sum(path.stat().st_size for path in problem.work.rglob("*.npy"))
  assert files > 12 * groups * latents
  # A few columns [F] and batches of [512, 16]; the sums would be 77 MB.
  assert top < 8 * latents * 8 + 64 * 512 * 16 + 4e6
