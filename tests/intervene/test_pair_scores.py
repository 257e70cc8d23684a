# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of pairs, against a loop of whole passes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steered_models

from sae_jax import errors, lm
from sae_jax import mesh as mesh_lib
from sae_jax.intervene import edits, packing, pair_scores
from sae_jax.judge import pairs as pairs_lib

pytestmark = pytest.mark.usefixtures("quick_compilation")

N = 5
PROMPTS = steered_models.prompts()
VECTORS_ND = 2 * np.random.default_rng(0).normal(size=(N, steered_models.D))
RESID = "blocks.1.hook_resid_post"
# A log-probability is the difference of two numbers of the logits' size, up to
# 5 here, each off by 4 * sqrt(8 products * 128 terms) * eps of the largest as
# in tests/lm; the mean over tokens is no worse.
ATOL = 2 * 5 * 4 * (8 * 128) ** 0.5 * 1.2e-7


def loop(model, prompts, interventions, first_difference=True) -> np.ndarray:
  """Mean log p [N, P, 2], one intervention after the other."""
  before, after, first = [], [], []
  for i in prompts.pairs:
    responses = prompts.prompts[i].responses
    pair = responses["bad"], responses["good"]
    for response in pair:
      before.append(prompts.prompts[i].tokens)
      after.append(response)
      first.append(pairs_lib.first_difference(*pair) if first_difference else 0)
  end_B = np.asarray([len(tokens) for tokens in before])
  found = []
  for n in range(interventions.n):
    row_B = np.full(len(before), n)
    logps = lm.completion_logprobs(
      model, before, after, edits=interventions.lm_edits(row_B, end_B)
    )
    found.append([x[f:].mean() for x, f in zip(logps, first, strict=True)])
  return np.asarray(found).reshape(interventions.n, -1, 2)


def check(scores: pair_scores.PairScores, expected_NP2: np.ndarray):
  for found_NP, expected_NP in zip(
    (scores.behaviour_NP, scores.contrast_NP),
    np.moveaxis(expected_NP2, -1, 0),
    strict=True,
  ):
    assert found_NP.dtype == np.float64
    np.testing.assert_allclose(found_NP, expected_NP, rtol=0, atol=ATOL)


@pytest.fixture(scope="module")
def model():
  return steered_models.pair("llama").load()


def test_scores_equal_a_loop_of_whole_passes(model):
  add = edits.add(RESID, VECTORS_ND)
  # 5 interventions of 3 at a time and 7 pairs of 3 at a time: filled up twice.
  scorer = pair_scores.Scorer(model, PROMPTS, batch_rows=10)
  assert scorer.pairs == PROMPTS.pairs and len(scorer.pairs) == 7
  assert scorer.ids == tuple(f"p{i}" for i in scorer.pairs)
  done = []
  scores = scorer.scores(add, done.append)
  check(scores, loop(model, PROMPTS, add))
  assert done == [3, 5]
  for j, i in enumerate(scorer.pairs):
    bad, good = (PROMPTS.prompts[i].responses[k] for k in ("bad", "good"))
    first = pairs_lib.first_difference(bad, good)
    assert scores.behaviour_tokens_P[j] == len(bad) - first > 0
    assert scores.contrast_tokens_P[j] == len(good) - first > 0
  # Interventions matter, or this shows nothing.
  assert scores.margin_NP.std(axis=0).min() > 0.02
  again = scorer.scores(add)
  np.testing.assert_array_equal(again.margin_NP, scores.margin_NP)
  # No edits: the same as an addend of 0, for every intervention.
  none = scorer.scores(edits.none(N))
  assert (none.behaviour_NP == none.behaviour_NP[:1]).all()
  zero = scorer.scores(edits.add(RESID, 0 * VECTORS_ND))
  check(none, np.stack([zero.behaviour_NP, zero.contrast_NP], axis=-1))


@pytest.mark.parametrize(
  ("name", "kind", "first_difference"),
  [
    pytest.param("gemma2", "several", True, marks=pytest.mark.slow),
    pytest.param("llama", "several", False, marks=pytest.mark.slow),
    pytest.param("gpt2", "mlp", True, marks=pytest.mark.slow),
    pytest.param("gemma2", "pre", False, marks=pytest.mark.slow),
  ],
)
def test_any_hooks_and_scopes_equal_the_loop(name, kind, first_difference):
  model = steered_models.pair(name).load()
  if kind == "several":
    some = edits.combine(
      edits.clamp(
        "blocks.2.hook_resid_pre",
        steered_models.dictionary(),
        np.arange(N)[:, None],
        np.full((N, 1), 3.0),
        "response",
      ),
      edits.add(RESID, VECTORS_ND, "response"),
    )
  elif kind == "mlp":
    some = edits.project_out(
      "blocks.2.hook_mlp_out", VECTORS_ND[:, None], "prompt"
    )
  else:
    some = edits.add("blocks.0.hook_resid_pre", VECTORS_ND)
  scorer = pair_scores.Scorer(model, PROMPTS, first_difference=first_difference)
  check(scorer.scores(some), loop(model, PROMPTS, some, first_difference))


def test_what_is_derived_from_the_two_means(model):
  scores = pair_scores.PairScores(
    np.log([[0.5, 0.2]]),
    np.log([[0.25, 0.6]]),
    np.asarray([1, 2]),
    np.asarray([3, 4]),
  )
  np.testing.assert_allclose(scores.p_behaviour_NP, [[0.5, 0.2]])
  np.testing.assert_allclose(scores.p_contrast_NP, [[0.25, 0.6]])
  np.testing.assert_allclose(scores.margin_NP, np.log([[2, 1 / 3]]))
  np.testing.assert_allclose(scores.mass_NP, np.log([[0.75, 0.8]]))


def test_a_pair_shares_what_both_responses_begin_with():
  packed = packing.pack((1, 2, 3), (7, 8, 9, 10), (7, 8, 5), first=2)
  assert packed.tokens_T.tolist() == [1, 2, 3, 7, 8, 9]
  assert packed.branch_T.tolist() == [0, 0, 0, 0, 0, 1]
  assert packed.prompt_end == 3
  assert packed.at_S.tolist() == [4, 5, 4]
  assert packed.target_S.tolist() == [9, 10, 5]
  assert packed.response_S.tolist() == [0, 0, 1]
  one = packing.pack((1, 2), (7,), (8,), first=0)
  assert one.tokens_T.tolist() == [1, 2] and one.at_S.tolist() == [1, 1]


def test_lengths_far_apart_are_compiled_apart(model):
  prompts = steered_models.prompts(6, words=50)
  packed = [
    packing.pack(
      prompts.prompts[i].tokens,
      prompts.prompts[i].responses["bad"],
      prompts.prompts[i].responses["good"],
      first=0,
    )
    for i in prompts.pairs
  ]
  batches = packing.batches(packed, 2, model.mesh)
  assert sorted(np.concatenate([i for i, _ in batches])) == list(
    range(len(packed))
  )
  lengths = [batch.tokens_PT.shape[1] for _, batch in batches]
  assert lengths == sorted(lengths) and len(set(lengths)) > 1
  for index, batch in batches:
    assert batch.mask_PT.shape[0] == 2
    real = [len(packed[i].tokens_T) for i in index]
    assert np.asarray(batch.mask_PT).sum(1)[: len(index)].tolist() == real
    total_PR = np.asarray(batch.weight_PSR).sum(1)
    np.testing.assert_allclose(total_PR, 1, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1, 8, 1), (1, 2, 4)])
def test_a_mesh_changes_nothing(model, sizes):
  sae, data, latent = sizes
  mesh = mesh_lib.make(mesh_lib.MeshConfig(sae=sae, data=data, latent=latent))
  many = steered_models.pair("llama").load(mesh=mesh)
  some = edits.combine(
    edits.add(RESID, VECTORS_ND),
    edits.clamp(
      "blocks.2.hook_resid_pre",
      steered_models.dictionary(),
      np.arange(N)[:, None],
      np.full((N, 1), 3.0),
    ),
  )
  one = pair_scores.Scorer(model, PROMPTS).scores(some)
  scorer = pair_scores.Scorer(many, PROMPTS, batch_rows=16)
  check(scorer.scores(some), np.stack([one.behaviour_NP, one.contrast_NP], -1))
  # Rows stay split over the devices that have sequences.
  assert len(scorer._streams[1][0].sharding.device_set) == 8
  rows = jax.P(("sae", "data"))
  expected = jax.NamedSharding(mesh, rows)
  assert scorer._streams[1][0].sharding.is_equivalent_to(expected, 3)


@pytest.mark.slow
def test_bfloat16_is_as_near_as_its_rounding():
  pair = steered_models.pair("llama")
  add = edits.add(RESID, VECTORS_ND)
  exact = pair_scores.Scorer(pair.load(), PROMPTS).scores(add)
  model = pair.load(dtype=jnp.bfloat16)
  rounded = pair_scores.Scorer(model, PROMPTS).scores(add)
  whole = loop(model, PROMPTS, add)
  # Weights and about 8 products of each of 4 layers are rounded by 2**-9 of
  # their size, at random: sqrt(2 * 8 * 4) * 2**-9 of logits up to 5, of which
  # the largest of 70 is 4 deviations off.
  atol = 4 * (2 * 8 * 4) ** 0.5 * 2**-9 * 5 / 2
  for found_NP, exact_NP, whole_NP in (
    (rounded.behaviour_NP, exact.behaviour_NP, whole[..., 0]),
    (rounded.contrast_NP, exact.contrast_NP, whole[..., 1]),
  ):
    np.testing.assert_allclose(found_NP, exact_NP, rtol=0, atol=atol)
    np.testing.assert_allclose(found_NP, whole_NP, rtol=0, atol=atol)


def _with(**responses):
  first = dataclasses.replace(PROMPTS.prompts[0], responses=responses)
  return dataclasses.replace(PROMPTS, prompts=(first,))


@pytest.mark.parametrize(
  ("prompts", "message"),
  [
    (_with(good=(1, 2)), "no prompt has both 'bad' and 'good'"),
    (_with(good=(1, 2), bad=(1, 2)), "prompt 'p0': both responses are"),
    (_with(good=(1, 2), bad=(96,)), "token 96, but .* has 0 to 95"),
  ],
)
def test_pairs_that_cannot_be_scored_are_named(model, prompts, message):
  with pytest.raises(errors.InputError, match=message):
    pair_scores.Scorer(model, prompts)


def test_scores_that_are_not_finite_are_named(model):
  broken = dataclasses.replace(
    model, model=jax.tree.map(lambda x: x * jnp.nan, model.model)
  )
  scorer = pair_scores.Scorer(broken, PROMPTS, batch_rows=10)
  with pytest.raises(errors.InputError, match="intervention 0 makes the score"):
    scorer.scores(edits.add(RESID, VECTORS_ND))
  with pytest.raises(errors.InputError, match="batch_rows=0"):
    pair_scores.Scorer(model, PROMPTS, batch_rows=0)
