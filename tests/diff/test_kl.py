# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Divergences are those of whole distributions in float64."""

import dataclasses

import live_problem
import numpy as np
import pytest
from live_problem import place, quick
from scipy import special

from sae_jax import errors
from sae_jax.diff import kl
from sae_jax.judge import likelihood

__all__ = ["place", "quick"]  # fixtures

CLOSE = 3e-6  # log-probabilities up to 10, some 5 roundings of 6e-8 each


def reference(problem, name):
  """Per sequence: KL, the word that adds most, change of probability [., V]."""
  tuned, base = (
    live_problem.Torch(problem.models.source(n)) for n in (name, "base")
  )
  found = []
  for sequence in problem.prompts.sequences(problem.config.scope):
    p_TV, q_TV = (
      np.exp(twin.log_softmax(list(sequence.tokens))) for twin in (tuned, base)
    )
    start, stop = sequence.span(problem.config.scope)
    at = slice(max(start, problem.config.skip_positions), stop)
    gain_TV = special.kl_div(p_TV, q_TV)[at]
    added_TV = special.rel_entr(p_TV, q_TV)[at]
    found.append(
      (gain_TV.sum(1), added_TV.argmax(1), (p_TV - q_TV)[at], sequence)
    )
  return found


@pytest.mark.parametrize("scope", ["response", "all"])
def test_divergence_is_that_of_whole_distributions(
  place, tmp_path, scope, monkeypatch
):
  # 8 sequences: three positions at a time of both models.
  monkeypatch.setattr(likelihood, "_LOGITS", 3 * 8 * 2 * 24)
  problem = live_problem.open_problem(place, tmp_path, scope=scope)
  wanted = reference(problem, "bad")
  kl_N = np.concatenate([w[0] for w in wanted])
  found = kl.measure(problem, "bad")
  assert found["tokens"] == len(kl_N)
  assert found["mean"] == pytest.approx(kl_N.mean(), abs=CLOSE)
  np.testing.assert_allclose(
    list(found["quantiles"].values()),
    np.quantile(kl_N, kl.QUANTILES),
    atol=CLOSE,
  )
  top = found["top"]
  assert len(top) == 20
  np.testing.assert_allclose(
    [t["kl"] for t in top], np.sort(kl_N)[::-1][:20], atol=CLOSE
  )
  change_V = np.concatenate([w[2] for w in wanted]).mean(0)
  words = live_problem.diff_models.words()
  for name, order_V in (
    ("risen", np.argsort(-change_V)),
    ("fallen", np.argsort(change_V)),
  ):
    np.testing.assert_allclose(
      [value for _, value in found["words"][name]],
      change_V[order_V[:20]],
      atol=CLOSE,
    )
    assert found["words"][name][0][0] == words[order_V[0]]


def test_the_largest_are_shown_where_they_are(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path)
  wanted = reference(problem, "bad")
  first = np.argmax([w[0].max() for w in wanted])
  values, word, _, sequence = wanted[first]
  at = int(values.argmax())
  words = live_problem.diff_models.words()
  position = len(sequence.tokens) - len(values) + at
  shown = kl.measure(problem, "bad")["top"][0]
  assert shown["prompt"] == problem.prompts.prompts[sequence.prompt].id
  assert shown["position"] == position
  assert shown["tokens"][-1] == words[sequence.tokens[position]]
  assert shown["gained"] == words[word[at]]
  after = sequence.tokens[position + 1 : position + 2]
  assert shown["next"] == (words[after[0]] if after else None)


def test_the_interval_draws_prompts(place, tmp_path):
  """Two responses to one prompt are one draw: copies change nothing."""
  problem = live_problem.open_problem(place, tmp_path)
  found = kl.measure(problem, "bad")
  assert found["low"] < found["mean"] < found["high"]
  names = {"bad": "bad", "good": "good", "again": "bad", "more": "good"}
  twice = dataclasses.replace(
    problem.prompts,
    appended=tuple(names),
    prompts=tuple(
      dataclasses.replace(
        p, responses={to: p.responses[of] for to, of in names.items()}
      )
      for p in problem.prompts.prompts
    ),
  )
  (tmp_path / "twice").mkdir()
  doubled = kl.measure(
    dataclasses.replace(problem, prompts=twice, work=tmp_path / "twice"), "bad"
  )
  assert doubled["tokens"] == 2 * found["tokens"]
  for name in ("mean", "low", "high"):
    assert doubled[name] == pytest.approx(found[name], abs=CLOSE)


def test_a_model_is_at_no_distance_from_itself(place, tmp_path):
  arm = dataclasses.replace(live_problem.ARMS[0], name="same", model="base")
  problem = live_problem.open_problem(place, tmp_path, arms=(arm,))
  found = kl.measure(problem, "same")
  assert found["mean"] == 0 and found["top"][0]["kl"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 2, 4), (2, 2, 2)])
def test_sharded_divergence_is_the_unsharded_one(place, tmp_path, shape):
  one, other = (
    kl.measure(live_problem.open_problem(place, tmp_path, shape=some), "bad")
    for some in ((1, 1, 1), shape)
  )
  assert one["mean"] == pytest.approx(other["mean"], abs=CLOSE)
  np.testing.assert_allclose(
    [t["kl"] for t in one["top"]], [t["kl"] for t in other["top"]], atol=CLOSE
  )


def test_what_is_done_is_not_done_again(place, tmp_path, monkeypatch):
  problem = live_problem.open_problem(place, tmp_path)
  found = kl.measure(problem, "bad")
  monkeypatch.setattr(kl, "_compare", None)
  assert kl.measure(problem, "bad") == found


def test_without_prompts_it_says_what_to_give(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path)
  with pytest.raises(errors.InputError, match="none are given; set"):
    kl.measure(dataclasses.replace(problem, prompts=None), "bad")
