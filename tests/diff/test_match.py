# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Two dictionaries that were trained apart."""

import dataclasses

import fake_evidence
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from sae_jax import errors, formats, sae
from sae_jax.diff import assignment, match

LATENTS, WIDTH = 96, 32
REPLACED = (3, 17, 40, 95)


def unit(rows_FD):
  return rows_FD / np.linalg.norm(rows_FD, axis=1, keepdims=True)


def dictionary(w_FD, **metadata):
  w_FD = jnp.asarray(w_FD, jnp.float32)
  return sae.make_sae(
    sae.Params(
      w_enc_FD=w_FD,
      w_dec_FD=w_FD,
      b_enc_F=jnp.zeros(len(w_FD)),
      b_dec_D=jnp.zeros(w_FD.shape[1]),
    ),
    4,
    metadata,
  )


@pytest.fixture(scope="module")
def copied():
  """A dictionary; a copy, permuted, with noise and a few latents replaced."""
  rng = np.random.default_rng(0)
  a_FD = unit(rng.normal(size=(LATENTS, WIDTH)))
  # Noise of half a row's length: the cosine with the copy is about 0.9.
  b_FD = a_FD + 0.5 / WIDTH**0.5 * rng.normal(size=a_FD.shape)
  b_FD[list(REPLACED)] = rng.normal(size=(len(REPLACED), WIDTH))
  to_F = rng.permutation(LATENTS)
  shuffled_FD = np.empty_like(b_FD)
  shuffled_FD[to_F] = unit(b_FD)
  return a_FD, shuffled_FD, to_F


def kept():
  return np.setdiff1d(np.arange(LATENTS), REPLACED)


# Split evenly over `latent`, and not; larger and smaller than a call's rows.
@pytest.mark.parametrize("latent", [1, 8, 5])
@pytest.mark.parametrize("exact_latents", [4096, 1])
def test_the_permutation_is_recovered(copied, latent, exact_latents):
  a_FD, b_FD, to_F = copied
  found = match.match(
    dictionary(a_FD),
    dictionary(b_FD),
    fake_evidence.make_mesh(latent=latent),
    exact_latents=exact_latents,
  )
  assert found.exact == (exact_latents > LATENTS)
  np.testing.assert_array_equal(found.partner_F[kept()], to_F[kept()])
  np.testing.assert_array_equal(found.ours.ids_FC[kept(), 0], to_F[kept()])
  assert found.mutual_F[kept()].all()
  expected_F = np.einsum("fd,fd->f", a_FD, b_FD[to_F])
  # float32 sums of 32 products
  np.testing.assert_allclose(
    found.partner_cos_F[kept()], expected_F[kept()], atol=1e-6
  )


def test_nearest_equals_numpy(copied):
  a_FD, b_FD, _ = copied
  mesh = fake_evidence.make_mesh(latent=4)
  found = assignment.nearest(a_FD, b_FD[:60], mesh, count=7)
  cos_FG = a_FD @ b_FD[:60].T
  order_FG = np.argsort(-cos_FG, axis=1, kind="stable")[:, :7]
  np.testing.assert_array_equal(found.ids_FC, order_FG)
  np.testing.assert_allclose(
    found.cos_FC, np.take_along_axis(cos_FG, order_FG, 1), atol=1e-6
  )


@pytest.mark.parametrize(("rows", "others"), [(40, 40), (40, 25), (25, 40)])
def test_the_exact_assignment_is_scipys(rows, others):
  rng = np.random.default_rng(1)
  a_FD, b_GD = rng.normal(size=(rows, 6)), rng.normal(size=(others, 6))
  partner_F, cos_F = assignment.exact(a_FD, b_GD)
  cos_FG = unit(a_FD) @ unit(b_GD).T
  at, to = scipy.optimize.linear_sum_assignment(-cos_FG)
  assert (partner_F >= 0).sum() == min(rows, others)
  np.testing.assert_array_equal(partner_F[at], to)
  np.testing.assert_allclose(cos_F[at], cos_FG[at, to])
  assert np.isnan(cos_F[partner_F < 0]).all()


def test_the_greedy_assignment_is_greedy_and_one_to_one():
  """With every pair a candidate: repeatedly the best pair that is free."""
  rng = np.random.default_rng(2)
  a_FD, b_GD = rng.normal(size=(14, 5)), rng.normal(size=(11, 5))
  mesh = fake_evidence.make_mesh()
  partner_F, cos_F = assignment.greedy(
    assignment.nearest(a_FD, b_GD, mesh), assignment.nearest(b_GD, a_FD, mesh)
  )
  left_FG = unit(a_FD) @ unit(b_GD).T
  for _ in range(11):
    a, b = np.unravel_index(np.argmax(left_FG), left_FG.shape)
    assert partner_F[a] == b
    np.testing.assert_allclose(cos_F[a], left_FG[a, b], atol=1e-6)
    left_FG[a], left_FG[:, b] = -np.inf, -np.inf
  assert (partner_F < 0).sum() == 3


def test_a_sign_is_part_of_a_latent():
  """−d is another latent than d: activations are never negative."""
  rng = np.random.default_rng(3)
  a_FD = unit(rng.normal(size=(8, 64)))
  found = match.match(
    dictionary(a_FD), dictionary(-a_FD), fake_evidence.make_mesh()
  )
  assert found.ours.cos_FC[:, 0].max() < 0.7
  assert found.ours.cos_FC.min() < -0.99


def run(tmp_path, ours, other, latent=1):
  tmp_path.mkdir(exist_ok=True)
  formats.save_sae(other, tmp_path / "other")
  problem = fake_evidence.make_problem(
    tmp_path / "work",
    {"base": np.zeros((4, ours.d_model))},
    np.zeros(4, int),
    dictionary=ours,
    mesh=fake_evidence.make_mesh(latent=latent),
  )
  config = dataclasses.replace(problem.config, match=str(tmp_path / "other"))
  problem = dataclasses.replace(problem, config=config)
  assert match.names(config) == [("match", "partner")]
  (part,) = match.run(problem)
  assert list(match.run(problem, frozenset(match.names(config)))) == []
  return part


def test_replaced_latents_have_no_partner(copied, tmp_path):
  a_FD, b_FD, to_F = copied
  part = run(tmp_path, dictionary(a_FD), dictionary(b_FD))
  assert set(np.flatnonzero(part.columns["changed"])) == set(REPLACED)
  best = np.argsort(-part.columns["score"])[: len(REPLACED)]
  assert set(best) == set(REPLACED)
  listed = part.summary["other_without_partner_first"]
  assert {row["latent"] for row in listed} == {int(to_F[i]) for i in REPLACED}
  assert part.summary["other_without_partner"] == len(REPLACED)
  assert part.summary["shared"]["0.7"] >= LATENTS - len(REPLACED)
  assert part.summary["warnings"] == []


def test_a_dictionary_matches_itself(copied, tmp_path):
  a_FD, _, _ = copied
  part = run(tmp_path, dictionary(a_FD), dictionary(a_FD))
  np.testing.assert_array_equal(part.columns["partner"], np.arange(LATENTS))
  assert part.columns["mutual"].all() and not part.columns["changed"].any()
  assert np.abs(part.columns["score"]).max() < 1e-6


def test_of_two_random_dictionaries_almost_nothing_is_shared(tmp_path):
  """99 % of latents are below the band, ± 3 binomial deviations."""
  rng = np.random.default_rng(4)
  a_FD, b_FD = unit(rng.normal(size=(2, 600, 24)).reshape(-1, 24)).reshape(
    2, 600, 24
  )
  part = run(tmp_path, dictionary(a_FD), dictionary(b_FD))
  shared = 600 - part.summary["without_partner"]
  assert shared <= 6 + 3 * (600 * 0.01 * 0.99 * 2) ** 0.5


def test_what_does_not_fit_is_said(copied, tmp_path):
  a_FD, b_FD, _ = copied
  with pytest.raises(errors.InputError, match="width 16"):
    run(tmp_path / "a", dictionary(a_FD), dictionary(b_FD[:, :16]))
  part = run(
    tmp_path / "b",
    dictionary(a_FD, hook_name="blocks.1.hook_resid_post"),
    dictionary(b_FD, hook_name="blocks.2.hook_resid_post"),
  )
  assert "different hooks" in part.summary["warnings"][0]
