# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Margins and their gradients are those of torch's autograd."""

import dataclasses

import jax
import jax.numpy as jnp
import live_problem
import numpy as np
import pytest
import torch
import transformers
from live_problem import place, quick

from sae_jax import errors, lm
from sae_jax.diff import config, margin, pairs
from sae_jax.judge import likelihood
from sae_jax.judge import prompts as prompts_lib

__all__ = ["place", "quick"]  # fixtures

# Both sides carry some 100 float32 (one of them float64) operations of size 1;
# 30 eps for values up to 4.
CLOSE = 1e-5


def reference(problem, name):
  """Per pair: margin, and d margin / d (a vector at every token in scope)."""
  twin = live_problem.Torch(problem.models.source(name))
  margins, gradients = [], []
  for i in problem.prompts.pairs:
    prompt = problem.prompts.prompts[i]
    value, gradient_D = 0.0, np.zeros(problem.evidence.d_model)
    for field, sign in (("bad", 1), ("good", -1)):
      tokens = prompt.tokens + prompt.responses[field]
      sequence = prompts_lib.Sequence(i, tokens, len(prompt.tokens))
      logp, grad_TD, _ = twin.run(list(tokens), len(prompt.tokens))
      start, stop = sequence.span(problem.config.scope)
      start = max(start, problem.config.skip_positions)
      value += sign * logp
      gradient_D += sign * grad_TD[start:stop].sum(0)
    margins.append(value)
    gradients.append(gradient_D)
  return np.array(margins), np.array(gradients)


@pytest.mark.parametrize("scope", ["response", "prompt", "prompt_last", "all"])
def test_margin_and_gradient_are_torchs(place, tmp_path, scope):
  problem = live_problem.open_problem(place, tmp_path, scope=scope)
  margin_P, gradient_PD = reference(problem, "bad")
  np.testing.assert_allclose(
    margin.margins(problem, "bad"), margin_P, atol=CLOSE
  )
  found_GD = margin.group_gradients(problem, "bad")
  assert np.abs(gradient_PD).max() > 0.1
  np.testing.assert_allclose(found_GD, gradient_PD, atol=CLOSE)


def test_groups_are_means_over_their_pairs(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path, groups=4)
  margin_P, gradient_PD = reference(problem, "base")
  for found, by_pair in (
    (margin.margins(problem, "base"), margin_P),
    (margin.group_gradients(problem, "base"), gradient_PD),
  ):
    wanted = [by_pair[group::4].mean(0) for group in range(4)]
    np.testing.assert_allclose(found, wanted, atol=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 2, 4), (1, 8, 1), (2, 2, 2)])
def test_sharded_gradients_are_the_unsharded_ones(place, tmp_path, shape):
  found = [
    margin.group_gradients(
      live_problem.open_problem(place, tmp_path, shape=some), "bad"
    )
    for some in ((1, 1, 1), shape)
  ]
  np.testing.assert_allclose(*found, atol=CLOSE)


def test_any_direction_predicts_what_adding_it_does(place, tmp_path):
  """To first order: halving the step quarters what is left over."""
  problem = live_problem.open_problem(place, tmp_path, scope="all")
  model = problem.model("base")
  gradient_D = margin.group_gradients(problem, "base").mean(0)
  step_D = np.random.default_rng(0).normal(size=gradient_D.shape)

  def shifted(size):
    edit = lm.Edit(live_problem.HOOK, _add, (jnp.float32(size * step_D),))
    values = []
    for i in problem.prompts.pairs:
      prompt = problem.prompts.prompts[i]
      logp = lm.completion_logprobs(
        model,
        [prompt.tokens] * 2,
        [prompt.responses["bad"], prompt.responses["good"]],
        edits=(edit,),
      )
      values.append(logp[0].mean() - logp[1].mean())
    return np.mean(values)

  here = shifted(0)
  left = [
    shifted(size) - here - size * gradient_D @ step_D for size in (0.2, 0.1)
  ]
  assert abs(left[0]) > 1e-4  # far above float32's rounding
  assert 2.5 < left[0] / left[1] < 6


def _add(h_BTD, mask_BT, step_D):
  # As `skip_positions` leaves the first position out.
  after_T = jnp.arange(h_BTD.shape[1]) > 0
  return h_BTD + after_T[None, :, None] * step_D[None, None, :]


def test_logits_of_few_positions_at_a_time_are_torchs(tmp_path, monkeypatch):
  """gpt2 in blocks of 2 positions, of which the last is short."""
  torch.manual_seed(0)
  own = transformers.GPT2LMHeadModel(
    transformers.GPT2Config(
      vocab_size=37, n_embd=16, n_layer=3, n_head=2, n_positions=24
    )
  ).eval()
  own.requires_grad_(False)
  own.save_pretrained(tmp_path / "gpt2")
  model = lm.load_lm(tmp_path / "gpt2", dtype=jnp.float32)
  monkeypatch.setattr(likelihood, "_LOGITS", 2 * 3 * 37)
  tokens_BT = np.random.default_rng(0).integers(0, 37, (3, 13))
  length_B, start_B = (13, 11, 9), (6, 2, 8)
  spans = list(zip(start_B, length_B, strict=True))
  mask_BT = np.arange(13)[None] < np.array(length_B)[:, None]
  scored_BR = pairs.positions(spans, 3, 11)
  logp_B, grad_BTD, x_BTD = jax.jit(
    lambda *xs: margin.backward(
      model.model, *xs, hook="blocks.0.hook_resid_post", mesh=model.mesh
    )
  )(tokens_BT, mask_BT, scored_BR)
  twin = live_problem.Torch(own.double(), layers=own.transformer.h)
  for row, (length, start) in enumerate(zip(length_B, start_B, strict=True)):
    logp, grad_TD, x_TD = twin.run(tokens_BT[row, :length].tolist(), start)
    np.testing.assert_allclose(logp_B[row], logp, atol=CLOSE)
    np.testing.assert_allclose(grad_BTD[row, :length], grad_TD, atol=CLOSE)
    np.testing.assert_allclose(x_BTD[row, :length], x_TD, atol=CLOSE)


def test_a_killed_run_goes_on_with_the_next_chunk(place, tmp_path, monkeypatch):
  monkeypatch.setattr(pairs, "_BATCHES_PER_CHUNK", 1)
  whole, cut = (
    live_problem.open_problem(place, tmp_path, batch_size=6) for _ in range(2)
  )
  (tmp_path / "whole").mkdir()
  whole = dataclasses.replace(whole, work=tmp_path / "whole")
  wanted = margin.group_gradients(whole, "bad")
  compute, calls = margin._pair_gradients, []

  def dies(*args, **kwargs):
    calls.append(1)
    if len(calls) == 3:
      raise KeyboardInterrupt
    return compute(*args, **kwargs)

  monkeypatch.setattr(margin, "_pair_gradients", dies)
  with pytest.raises(KeyboardInterrupt):
    margin.group_gradients(cut, "bad")
  found = margin.group_gradients(cut, "bad")
  # 11 pairs by 3 are 4 chunks; two were kept, the third was begun twice.
  assert len(calls) == 5
  np.testing.assert_array_equal(found, wanted)
  margin.group_gradients(cut, "bad")
  assert len(calls) == 5


def test_what_is_missing_is_named(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path)
  with pytest.raises(errors.InputError, match="none are given"):
    margin.margins(dataclasses.replace(problem, prompts=None), "base")
  few = dataclasses.replace(problem.prompts, behaviour="rude")
  with pytest.raises(errors.InputError, match=r"no prompt has both.*'rude'"):
    margin.margins(dataclasses.replace(problem, prompts=few), "base")
  arms = (config.Arm(name="bad", store="/somewhere"),)
  stored = dataclasses.replace(
    problem.models._config, arms=arms, base_store="/base"
  )
  models = type(problem.models)(stored, problem.mesh)
  with pytest.raises(errors.InputError, match="the arm 'bad'"):
    margin.margins(dataclasses.replace(problem, models=models), "bad")
