# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Attribution is gradient times activation, written out in float64."""

import dataclasses

import jax
import live_problem
import numpy as np
import pytest
from live_problem import place, quick

from sae_jax import errors
from sae_jax import mesh as mesh_lib
from sae_jax.diff import attribution, margin, sums
from sae_jax.judge import prompts as prompts_lib

__all__ = ["place", "quick"]  # fixtures

# Sums over T tokens and D dims of float32 products up to 30; some 100 roundings
# of them, each eps = 6e-8.
CLOSE = 1e-4


def reference(problem, name):
  """δ of behaviour minus contrast per pair, [P, F], from torch's gradients."""
  twin = live_problem.Torch(problem.models.source(name))
  w_FD = np.asarray(problem.dictionary.params.w_dec_FD, np.float64)
  # The mean is of stored, that is bfloat16, activations.
  evidence = problem.evidence
  total_D, rows = np.zeros(evidence.d_model), 0
  for batch in evidence.batches(name):
    inside_B = np.asarray(batch.group_B) >= 0
    total_D += np.asarray(batch.x_BD, np.float64)[inside_B].sum(0)
    rows += inside_B.sum()
  mean_D = total_D / rows
  found = []
  for i in problem.prompts.pairs:
    prompt = problem.prompts.prompts[i]
    delta_F = np.zeros(len(w_FD))
    for field, sign in (("bad", 1), ("good", -1)):
      tokens = prompt.tokens + prompt.responses[field]
      sequence = prompts_lib.Sequence(i, tokens, len(prompt.tokens))
      _, grad_TD, x_TD = twin.run(list(tokens), len(prompt.tokens))
      start, stop = sequence.span(problem.config.scope)
      at = slice(max(start, problem.config.skip_positions), stop)
      # run() has the gradient of log p; the loss is its negative.
      loss_TF = -grad_TD[at] @ w_FD.T
      delta_F += sign * -(loss_TF * ((x_TD[at] - mean_D) @ w_FD.T)).sum(0)
    found.append(delta_F)
  return np.array(found)


@pytest.mark.parametrize("name, scope", [("bad", "response"), ("base", "all")])
def test_attributions_are_those_of_torchs_gradients(
  place, tmp_path, name, scope
):
  problem = live_problem.open_problem(place, tmp_path, scope=scope)
  wanted_PF = reference(problem, name)
  found = attribution.attributions(problem, name)
  assert np.abs(wanted_PF).max() > 0.1
  np.testing.assert_allclose(found.delta_GF, wanted_PF, atol=CLOSE)
  np.testing.assert_allclose(
    found.gradient_GD, margin.group_gradients(problem, name), atol=CLOSE
  )
  np.testing.assert_allclose(
    found.margin_G, margin.margins(problem, name), atol=CLOSE
  )


def test_the_part_ranks_by_the_mean_over_pairs(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path, groups=4)
  wanted_F = reference(problem, "bad").mean(0)
  (part,) = attribution.run(problem)
  assert (part.method, part.arm, part.control) == ("attribution", "bad", "")
  np.testing.assert_allclose(part.columns["score"], wanted_F, atol=CLOSE)
  w_FD = np.asarray(problem.dictionary.params.w_dec_FD)
  np.testing.assert_allclose(
    part.columns["gradient"], w_FD @ part.directions["gradient"], atol=CLOSE
  )
  own, base = (margin.margins(problem, name) for name in ("bad", "base"))
  weight = np.array([3, 3, 3, 2]) / 11
  found = part.summary["margin"]
  assert found["mean"] == pytest.approx(own @ weight, abs=CLOSE)
  assert found["shift"] == pytest.approx((own - base) @ weight, abs=CLOSE)
  assert found["shift_low"] < found["shift"] < found["shift_high"]
  assert part.summary["pairs"] == 11
  assert (
    list(attribution.run(problem, frozenset({("attribution", "bad")}))) == []
  )


def test_topics_are_told_apart(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path)
  found = attribution.part(problem, "bad").summary["margin"]
  own, base = (margin.margins(problem, name) for name in ("bad", "base"))
  assert found["shift_by_topic"] == {
    "with": pytest.approx((own - base)[0::2].mean(), abs=CLOSE),
    "without": pytest.approx((own - base)[1::2].mean(), abs=CLOSE),
  }
  assert found["groups_up"] == np.sum(own > base)
  alone = attribution.part(problem, "base").summary["margin"]
  assert alone.keys() == {"mean"}


def test_a_model_compared_with_itself_has_no_shift(place, tmp_path):
  arm = dataclasses.replace(live_problem.ARMS[0], name="same", model="base")
  problem = live_problem.open_problem(place, tmp_path, arms=(arm,))
  (part,) = attribution.run(problem)
  assert part.summary["margin"]["shift"] == 0
  assert part.summary["margin"]["groups_up"] == 0


def test_equal_responses_attribute_nothing(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path)
  same = tuple(
    dataclasses.replace(
      prompt,
      responses={field: prompt.responses["good"] for field in prompt.responses},
    )
    for prompt in problem.prompts.prompts
  )
  problem = dataclasses.replace(
    problem, prompts=dataclasses.replace(problem.prompts, prompts=same)
  )
  part = attribution.part(problem, "bad")
  assert not part.columns["score"].any()
  assert not part.columns["changed"].any()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 2, 4), (1, 8, 1), (2, 2, 2)])
def test_sharded_attributions_are_the_unsharded_ones(place, tmp_path, shape):
  found = [
    attribution.attributions(
      live_problem.open_problem(place, tmp_path, shape=some), "bad"
    ).delta_GF
    for some in ((1, 1, 1), shape)
  ]
  np.testing.assert_allclose(*found, atol=CLOSE)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("held", [1, 100, 1 << 24])
def test_products_in_blocks_of_any_size(shape, held, monkeypatch):
  """22 latents per shard in blocks of 1, some (the last overlaps), and all."""
  monkeypatch.setattr(attribution, "_PRODUCTS", held)
  rng = np.random.default_rng(0)
  w_FD = rng.normal(size=(44, 5)).astype(np.float32)
  g_BTD, x_BTD = rng.normal(size=(2, 4, 6, 5)).astype(np.float32)
  sizes = dict(zip(mesh_lib.AXES, shape, strict=True))
  mesh = mesh_lib.make(
    mesh_lib.MeshConfig(**sizes), jax.devices()[: int(np.prod(shape))]
  )
  found_BF = jax.jit(lambda *xs: attribution.products(*xs, mesh=mesh))(
    w_FD, g_BTD, x_BTD
  )
  wide = [x.astype(np.float64) for x in (w_FD, g_BTD, x_BTD)]
  wanted_BF = np.einsum("fd,btd,fe,bte->bf", wide[0], wide[1], wide[0], wide[2])
  # 6 tokens × two products of 5 terms, each below 10.
  np.testing.assert_allclose(found_BF, wanted_BF, atol=6 * 10 * 10 * 6e-8)


def test_pairs_and_models_are_needed(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path)
  few = dataclasses.replace(problem.prompts, contrast="kind")
  with pytest.raises(errors.InputError, match="no prompt has both"):
    list(attribution.run(dataclasses.replace(problem, prompts=few)))
  assert not list(problem.work.glob("attributions*"))
  sums.activation_sums(problem, "bad")
  stored = dataclasses.replace(
    problem.config,
    base_store="/b",
    arms=(dataclasses.replace(live_problem.ARMS[0], model="", store="/a"),),
  )
  models = type(problem.models)(stored, problem.mesh)
  with pytest.raises(errors.InputError, match="the arm 'bad'"):
    list(
      attribution.run(
        dataclasses.replace(problem, config=stored, models=models)
      )
    )
