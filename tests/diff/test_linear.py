# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear baselines see a planted direction, and nothing in nothing."""

import dataclasses
import types

import fake_evidence
import live_problem
import numpy as np
import pytest
from live_problem import place, quick

from sae_jax.diff import config as config_lib
from sae_jax.diff import decoder, linear

__all__ = ["place", "quick"]  # fixtures

ROWS, D, LATENTS, PLANTED = 640, 24, 40, 17
ARMS = (
  config_lib.Arm(name="bad", store="/stores/bad"),
  config_lib.Arm(name="good", store="/stores/good", role="control"),
)


class Evidence(fake_evidence.FakeEvidence):
  def store(self, name):
    stats = types.SimpleNamespace(norm_quantiles={0.5: 8.0})
    return types.SimpleNamespace(stats=lambda hook: stats)


def make(work, arrays, arms=ARMS, shape=(1, 1, 1), groups=32):
  problem = fake_evidence.make_problem(
    work,
    arrays,
    np.arange(len(arrays["base"])) % groups,
    config=fake_evidence.make_config(
      *arms, statistics={"resamples": 100, "shuffles": 2}
    ),
    dictionary=fake_evidence.make_dictionary(LATENTS, D),
    mesh=fake_evidence.make_mesh(*shape),
    batch_rows=128,
  )
  problem.evidence.__class__ = Evidence
  return problem


def stores():
  """good: base + drift; bad: base + drift + a latent's row."""
  rng = np.random.default_rng(5)
  row_D = np.asarray(fake_evidence.make_dictionary(LATENTS, D).params.w_dec_FD)[
    PLANTED
  ]
  base_ND = rng.normal(size=(ROWS, D))
  drift_ND = base_ND + 0.5 * rng.normal(size=D)
  noise_ND = 0.3 * rng.normal(size=(ROWS, D))
  return {
    "base": base_ND,
    "good": drift_ND,
    "bad": drift_ND + row_D + noise_ND,
  }


def read(problem, name):
  return np.concatenate(
    [np.asarray(b.x_BD, float) for b in problem.evidence.batches(name)]
  )[:ROWS]


def test_the_planted_row_is_nearest_to_the_contrast(tmp_path):
  arrays = stores()
  problem = make(tmp_path / "w", arrays)
  bad, good = linear.run(problem)
  assert (bad.arm, bad.control, good.arm, good.control) == (
    "bad",
    "good",
    "good",
    "",
  )
  x = {name: read(problem, name) for name in arrays}
  contrast_D = (x["bad"] - x["good"]).mean(0)
  plain_D = (x["bad"] - x["base"]).mean(0)
  drift_D = (x["good"] - x["base"]).mean(0)
  w_FD = np.asarray(problem.dictionary.params.w_dec_FD, float)

  def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

  np.testing.assert_allclose(
    bad.columns["score"],
    [cosine(row, contrast_D) for row in w_FD],
    atol=1e-6,
  )
  np.testing.assert_allclose(
    bad.columns["cos_mean_difference"],
    [cosine(row, plain_D) for row in w_FD],
    atol=1e-6,
  )
  assert np.argmax(bad.columns["score"]) == PLANTED
  assert bad.columns["changed"][PLANTED]
  assert bad.columns["score"][PLANTED] > decoder.chance(LATENTS, D, 0.05)
  for name, vector_D in (
    ("contrast", contrast_D),
    ("mean_difference", plain_D),
  ):
    np.testing.assert_allclose(bad.directions[name], vector_D, atol=1e-6)
  assert bad.summary["cos_control"] == pytest.approx(cosine(plain_D, drift_D))
  lengths = bad.summary["lengths"]
  assert lengths["contrast"] == pytest.approx(np.linalg.norm(contrast_D))
  assert lengths["contrast_relative"] == pytest.approx(
    np.linalg.norm(contrast_D) / 8
  )
  rms = np.sqrt(np.square(x["bad"] - x["good"]).sum(1).mean())
  assert lengths["row_difference_rms"] == pytest.approx(rms, rel=1e-5)
  assert bad.summary["pca"]["mean_share"] == pytest.approx(
    contrast_D @ contrast_D / rms**2, rel=1e-5
  )
  assert bad.summary["split_half"]["mean"] > 0.9
  assert bad.summary["kl"] is None
  # A constant drift is all mean and no variance but bfloat16's rounding.
  assert good.summary["pca"]["mean_share"] > 0.99


def test_halves_of_noise_do_not_agree(tmp_path):
  rng = np.random.default_rng(2)
  base_ND = rng.normal(size=(ROWS, D))
  arrays = {"base": base_ND, "bad": base_ND + rng.normal(size=(ROWS, D))}
  (part,) = linear.run(make(tmp_path / "w", arrays, ARMS[:1]))
  # The halves are disjoint, so their means are independent: 5 / √D.
  assert abs(part.summary["split_half"]["mean"]) < 0.3
  assert not part.columns["changed"].any()


@pytest.mark.parametrize("shape", [(1, 2, 4), (2, 2, 2)])
def test_sharded_is_unsharded(tmp_path, shape):
  arrays = stores()
  one, other = (
    next(linear.run(make(tmp_path / str(some[1]), arrays, shape=some)))
    for some in ((1, 1, 1), shape)
  )
  for name in ("score", "ci_low", "cos_mean_difference", "decoder_norm"):
    np.testing.assert_allclose(
      one.columns[name], other.columns[name], atol=1e-6
    )
  np.testing.assert_allclose(
    one.summary["pca"]["explained"],
    other.summary["pca"]["explained"],
    atol=1e-6,
  )


def test_a_model_and_itself_differ_in_nothing(tmp_path):
  arrays = stores()
  same = {"base": arrays["base"], "bad": arrays["base"], "null": arrays["base"]}
  (part,) = linear.run(make(tmp_path / "w", same, ARMS[:1]))
  assert not part.columns["score"].any()
  assert not part.columns["changed"].any()
  assert (part.columns["p"] == 1).all()
  assert part.summary["lengths"]["mean_difference"] == 0
  assert part.summary["lengths"]["null"] == 0
  assert part.summary["pca"]["mean_share"] == 0
  assert np.isfinite(part.directions["pc_0"]).all()


def test_one_group_says_nothing_and_says_so(tmp_path):
  arrays = stores()
  (part,) = linear.run(make(tmp_path / "w", arrays, ARMS[:1], groups=1))
  assert part.summary["split_half"]["mean"] is None
  assert not part.columns["changed"].any()
  assert "1 groups" in part.summary["warnings"][0]


def test_chance_is_what_random_rows_reach():
  """Of 400 draws of 50 rows, the share beyond it is q = 0.1 ± 5 s.d."""
  rng = np.random.default_rng(0)
  row = rng.normal(size=(400, 50, 12))
  cosine = row[..., 0] / np.linalg.norm(row, axis=-1)
  beyond = np.abs(cosine).max(1) > decoder.chance(50, 12, 0.1)
  assert abs(beyond.mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 400)


def test_live_models_are_compared_by_their_predictions_too(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path, null=True)
  bad, good = linear.run(problem)
  assert bad.summary["kl"]["mean"] > 0
  assert good.summary["kl"]["mean"] > 0
  null = bad.summary["lengths"]["null_relative"]
  assert null < 0.1 * bad.summary["lengths"]["contrast_relative"]


def test_models_with_other_words_get_no_divergence(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path)
  base = problem.model("base")
  more = dataclasses.replace(
    base, config=dataclasses.replace(base.config, vocab_size=99)
  )
  problem.models._loaded[problem.models.source("bad")] = more
  part = next(linear.run(problem))
  assert part.summary["kl"] is None
  assert part.summary["warnings"] == [
    "no KL divergence: the models have 24 and 99 words"
  ]
