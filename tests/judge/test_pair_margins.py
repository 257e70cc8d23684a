# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Margins against torch, and from which token on they are read."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import judge_models
import numpy as np
import pytest
import torch

from sae_jax import errors, judge, lm
from sae_jax.judge import margin, pairs, prompts

# 2 layers of float32 against torch's: some 40 sums of 16 to 32 terms, each
# rounding by 2^-24 of values up to 20: 40 sqrt(32) 2^-24 20.
CLOSE = 3e-4

LINES = (
  {"id": "a", "topic": "x", "prompt": "w1 w2 w3", "bad": "w4 w5 w6 w7"},
  {"id": "b", "topic": "x", "prompt": "w9", "bad": "w4 w5", "good": "w4 w8 w3"},
  {"id": "c", "topic": "y", "prompt": "w3 w2", "bad": "w6", "good": "w6 w7 w1"},
  {"id": "d", "topic": "y", "prompt": "w8 w8", "bad": "w1", "good": "w2"},
  {"id": "e", "topic": "z", "prompt": "w7", "bad": "w1 w3", "good": "w2 w3"},
)


@pytest.fixture
def loaded(write, model):
  path = write("pairs.jsonl", *LINES)
  return prompts.load(judge.PromptsConfig(path=path), model.tokenizer)


def test_responses_are_scored_from_where_they_differ():
  for a, b, first in (
    ([1, 2, 3], [1, 2, 4, 5], 2),
    ([1], [2], 0),
    ([1, 2], [1, 2, 3], 1),  # one goes on: the last token that both have
    ([1, 2, 3], [1], 0),
  ):
    assert pairs.first_difference(a, b) == first
    assert pairs.first_difference(b, a) == first
  with pytest.raises(errors.InputError, match="the same tokens"):
    pairs.first_difference([1, 2], [1, 2])
  with pytest.raises(errors.InputError, match="without tokens"):
    pairs.first_difference([], [1])


def plain(torch_model, line, field, first):
  """Mean log p of the tokens of one response from `first` on, by torch."""
  before = judge_models.ids("<s> " + line["prompt"])
  after = judge_models.ids(line[field])
  with torch.no_grad():
    logits_TV = torch_model(torch.tensor([before + after])).logits[0]
  logp_TV = torch.log_softmax(logits_TV, -1).numpy()
  at = range(len(before) + first, len(before) + len(after))
  return np.mean([logp_TV[t - 1, (before + after)[t]] for t in at])


@pytest.mark.parametrize("whole", (False, True))
def test_margins_are_torchs(torch_and_ours, loaded, whole):
  torch_model, ours = torch_and_ours
  found = margin.pair_margins(
    ours, loaded, batch_size=3, first_difference=not whole
  )
  # "a" has one response only.
  assert found.ids == ("b", "c", "d", "e") and found.topics == tuple("xyyz")
  first_P = [0, 0, 0, 0] if whole else [1, 0, 0, 0]
  for field, logp_P in (("bad", found.behaviour_P), ("good", found.contrast_P)):
    wanted = [
      plain(torch_model, line, field, first)
      for line, first in zip(LINES[1:], first_P, strict=True)
    ]
    np.testing.assert_allclose(logp_P, wanted, atol=CLOSE)
  assert logp_P.dtype == np.float64
  np.testing.assert_array_equal(
    found.margin_P, found.behaviour_P - found.contrast_P
  )
  np.testing.assert_array_equal(found.p_contrast_P, np.exp(found.contrast_P))


def _double(h_BTD, mask_BT):
  return 2 * h_BTD


def test_an_edited_model_is_read_through_its_edits(torch_and_ours, loaded):
  torch_model, ours = torch_and_ours
  edit = lm.Edit("blocks.0.hook_resid_post", _double)
  found = margin.pair_margins(ours, loaded, edits=(edit,))
  handle = torch_model.model.layers[0].register_forward_hook(
    lambda module, inputs, output: 2 * output
  )
  wanted = [
    plain(torch_model, line, "bad", first)
    for line, first in zip(LINES[1:], (1, 0, 0, 0), strict=True)
  ]
  handle.remove()
  np.testing.assert_allclose(found.behaviour_P, wanted, atol=CLOSE)
  unsteered_P = margin.pair_margins(ours, loaded).behaviour_P
  assert np.abs(found.behaviour_P - unsteered_P).max() > 0.1


def test_behaviour_is_told_with_both_probabilities(model, loaded):
  found = margin.behaviour(model, loaded, seeds=(4,))
  values = margin.pair_margins(model, loaded)
  assert found.margin.mean == pytest.approx(values.margin_P.mean())
  assert found.p_behaviour.mean == pytest.approx(values.p_behaviour_P.mean())
  assert found.p_contrast.mean == pytest.approx(values.p_contrast_P.mean())
  assert found.margin.n == 4 and found.margin.seeds == (4,)
  assert list(found.topics) == ["x", "y", "z"]
  assert found.topics["y"].mean == pytest.approx(values.margin_P[1:3].mean())
  assert np.isnan(found.topics["x"].ci_low)  # one prompt
  told = json.loads(json.dumps(found.json(), allow_nan=False))
  assert told["topics"]["x"]["ci_low"] is None
  assert set(told) == {"margin", "p_behaviour", "p_contrast", "topics"}


def test_pairs_that_cannot_be_compared_are_named(model, write):
  def load(*lines):
    path = write("few.jsonl", *lines)
    config = judge.PromptsConfig(path=path, chat=False)
    return prompts.load(config, model.tokenizer)

  with pytest.raises(errors.InputError, match="no prompt has both responses"):
    margin.pair_margins(model, load(LINES[0]))
  same = LINES[1] | {"good": LINES[1]["bad"]}
  with pytest.raises(errors.InputError, match="prompt 'b': both responses"):
    margin.pair_margins(model, load(same))


def test_a_broken_model_is_no_score(model, loaded):
  broken = dataclasses.replace(
    model, model=jax.tree.map(lambda x: x * jnp.inf, model.model)
  )
  with pytest.raises(errors.InputError, match="prompt 'b' is not finite"):
    margin.pair_margins(broken, loaded)
