# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Components are those of the whole covariance in float64."""

import fake_evidence
import numpy as np
import pytest

from sae_jax.diff import pca

ROWS, D = 301, 24


@pytest.fixture(scope="module")
def arrays():
  """Differences with a mean, a falling spectrum and 7 rows out of scope."""
  rng = np.random.default_rng(0)
  base_ND = rng.normal(size=(ROWS, D))
  basis_DD, _ = np.linalg.qr(rng.normal(size=(D, D)))
  scale_D = 4.0 * 0.6 ** np.arange(D)
  delta_ND = (rng.normal(size=(ROWS, D)) * scale_D) @ basis_DD + 0.5
  group_N = rng.integers(0, 9, ROWS)
  group_N[::50] = -1
  return {"base": base_ND, "bad": base_ND + delta_ND}, group_N


def make(work, arrays, shape=(1, 1, 1), batch_rows=64):
  work.mkdir(exist_ok=True)
  return fake_evidence.make_problem(
    work,
    *arrays,
    mesh=fake_evidence.make_mesh(*shape),
    dictionary=fake_evidence.make_dictionary(d_model=D),
    batch_rows=batch_rows,
  )


def differences(problem):
  found = []
  pairs = zip(
    problem.evidence.batches("bad"),
    problem.evidence.batches("base"),
    strict=True,
  )
  for ours, theirs in pairs:
    inside_B = np.asarray(ours.group_B) >= 0
    delta_BD = np.asarray(ours.x_BD, float) - np.asarray(theirs.x_BD, float)
    found.append(delta_BD[inside_B])
  return np.concatenate(found)


def wanted(problem):
  """Mean, eigenvalues and vectors (rows), largest first."""
  delta_ND = differences(problem)
  values, vectors = np.linalg.eigh(np.cov(delta_ND.T, bias=True))
  return delta_ND.mean(0), values[::-1], vectors.T[::-1]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 4), (2, 2, 2), (1, 1, 5)])
def test_the_covariance_is_exact(tmp_path, arrays, shape):
  """Also where the width (24) does not split over `latent` (5)."""
  problem = make(tmp_path / "w", arrays, shape)
  mean_D, values_D, vectors_DD = wanted(problem)
  found = pca.components(problem, "bad", "base", mean_D)
  total = values_D.sum()
  # Products of 64 rows in float32, values up to 10² per row.
  close = 1e-6 * total
  np.testing.assert_allclose(found.variance_C, values_D, atol=close)
  assert found.total == pytest.approx(total, abs=close)
  assert found.participation == pytest.approx(
    total**2 / np.sum(values_D**2), rel=1e-5
  )
  # The first eight stand apart: gaps of 0.64 of their value.
  agreement_C = np.sum(found.vectors_CD[:8] * vectors_DD[:8], axis=1)
  np.testing.assert_allclose(np.abs(agreement_C), 1, atol=1e-5)
  assert (found.vectors_CD @ mean_D >= 0).all()
  assert found.rows == len(differences(problem))


def test_a_wide_model_s_first_components_are_found(
  tmp_path, arrays, monkeypatch
):
  monkeypatch.setattr(pca, "COMPONENTS", 6)
  monkeypatch.setattr(pca, "_OVERSAMPLE", 6)
  problem = make(tmp_path / "w", arrays, (1, 2, 4))
  mean_D, values_D, vectors_DD = wanted(problem)
  found = pca.components(problem, "bad", "base", mean_D, exact_width=8)
  # Two power steps leave (0.6²)^(2·12) of what is beyond the 12 dims kept.
  np.testing.assert_allclose(found.variance_C, values_D[:6], rtol=1e-4)
  agreement_C = np.sum(found.vectors_CD * vectors_DD[:6], axis=1)
  np.testing.assert_allclose(np.abs(agreement_C), 1, atol=1e-4)
  assert found.total == pytest.approx(values_D.sum(), rel=1e-5)
  assert found.participation is None


def test_sums_over_batches_lose_nothing(tmp_path, monkeypatch):
  """Odd integers up to 255: a batch's products are exact, and so is the end.

  The sums pass 2²⁴, where plain float32 would drop what is odd.
  """
  monkeypatch.setattr(pca, "_FOLD", 1000)
  rng = np.random.default_rng(1)
  delta_ND = 2.0 * rng.integers(100, 128, (2048, 8)) + 1
  delta_ND *= rng.choice([-1.0, 1.0], (2048, 1))
  problem = fake_evidence.make_problem(
    tmp_path / "w",
    {"base": np.zeros((2048, 8)), "bad": delta_ND},
    np.arange(2048) % 16,
    dictionary=fake_evidence.make_dictionary(d_model=8),
    batch_rows=8,
  )
  total_DD, trace = pca._second_moment(
    problem, "bad", "base", np.zeros(8), None, "sums"
  )
  assert total_DD.min() > 2**24
  np.testing.assert_array_equal(total_DD, delta_ND.T @ delta_ND)
  assert trace == np.square(delta_ND).sum()


def test_a_killed_pass_goes_on_and_ends_with_the_same_bits(
  tmp_path, arrays, monkeypatch
):
  monkeypatch.setattr(pca, "_FOLD", 3)
  monkeypatch.setattr(pca, "_SECONDS", -1)
  whole = make(tmp_path / "whole", arrays, batch_rows=16)
  cut = make(tmp_path / "cut", arrays, batch_rows=16)
  mean_D, _, _ = wanted(whole)
  first = pca.components(whole, "bad", "base", mean_D)
  batches, read = cut.evidence.batches, []

  def dies(name, start=0):
    for batch in batches(name, start):
      if name == "bad":
        read.append(batch.index)
        if len(read) == 9:
          raise KeyboardInterrupt
      yield batch

  monkeypatch.setattr(cut.evidence, "batches", dies)
  with pytest.raises(KeyboardInterrupt):
    pca.components(cut, "bad", "base", mean_D)
  second = pca.components(cut, "bad", "base", mean_D)
  # Batches 0 to 5 are kept; the ninth died.
  assert read == [*range(9), *range(6, 19)]
  np.testing.assert_array_equal(first.vectors_CD, second.vectors_CD)
  np.testing.assert_array_equal(first.variance_C, second.variance_C)
  pca.components(cut, "bad", "base", mean_D)
  assert len(read) == 22


def test_no_difference_has_no_variance(tmp_path, arrays):
  stores, group_N = arrays
  same = {"base": stores["base"], "bad": stores["base"]}
  problem = make(tmp_path / "w", (same, group_N))
  found = pca.components(problem, "bad", "base", np.zeros(D))
  assert not found.variance_C.any() and found.total == 0
  assert found.participation is None
  assert np.isfinite(found.vectors_CD).all()
