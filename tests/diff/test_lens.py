# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The lens is the mean difference on first tokens, beside what is nothing."""

import dataclasses
import json

import live_problem
import numpy as np
import pytest
import torch
from live_problem import place, quick

from sae_jax import errors
from sae_jax.diff import config, lens
from sae_jax.lm import text as text_lib

__all__ = ["place", "quick"]  # fixtures

CLOSE = 1e-5  # activations up to 5, some 20 float32 roundings
TEXTS, POSITIONS = 23, 4


def told(place, **changes):
  text = text_lib.TextConfig(
    path=str(place / "text"), context_length=6, packed=False
  )
  return config.LensConfig(
    text=dataclasses.replace(text, **changes.pop("text", {})),
    **{"positions": POSITIONS, **changes},
  )


def make(place, work, **changes):
  return live_problem.open_problem(
    place, work, **{"lens": told(place), **changes}
  )


def activations(place, problem, name):
  """[N, P, D] in torch: first tokens of every piece of 6 with its BOS."""
  twin = live_problem.Torch(problem.models.source(name))
  numbers = {word: i for i, word in enumerate(live_problem.diff_models.words())}
  found = []

  def keep(module, arguments, output):
    output = output[0] if isinstance(output, tuple) else output
    found.append(output[0].numpy())

  handle = twin.layer.register_forward_hook(keep)
  for file in sorted((place / "text").iterdir()):
    ids = [numbers[word] for word in file.read_text().split()]
    # 9 words: a piece of 5 and one of 4, each after a BOS.
    for piece in (ids[:5], ids[5:]):
      with torch.no_grad():
        twin.model(torch.tensor([[0, *piece][:POSITIONS]]))
  handle.remove()
  return np.array(found)


def test_the_lens_is_the_mean_difference_at_each_position(place, tmp_path):
  problem = make(place, tmp_path)
  x = {n: activations(place, problem, n) for n in ("base", "bad", "good")}
  bad, good = lens.run(problem)
  assert (bad.arm, bad.control, good.control) == ("bad", "good", "")
  assert bad.summary["compared"] == "bad - good"
  assert bad.summary["contexts"] == len(x["base"]) == 2 * TEXTS
  plain_PD = (x["good"] - x["base"]).mean(0)
  for p in range(POSITIONS):
    np.testing.assert_allclose(
      good.directions[f"lens_{p}"], plain_PD[p], atol=CLOSE
    )
    assert good.summary["positions"][p]["norm"] == pytest.approx(
      np.linalg.norm(plain_PD[p]), abs=CLOSE
    )
  mean_D = plain_PD[1:].mean(0)  # skip_positions leaves the BOS out
  np.testing.assert_allclose(good.directions["lens"], mean_D, atol=CLOSE)
  w_FD = np.asarray(problem.dictionary.params.w_dec_FD)
  np.testing.assert_allclose(
    good.columns["score"],
    w_FD @ mean_D / np.linalg.norm(mean_D) / np.linalg.norm(w_FD, axis=1),
    atol=1e-3,
  )
  np.testing.assert_allclose(
    bad.directions["lens_plain"],
    (x["bad"] - x["base"]).mean(0)[1:].mean(0),
    atol=CLOSE,
  )


def test_words_stand_beside_those_of_nothing(place, tmp_path):
  problem = make(place, tmp_path)
  good = list(lens.run(problem))[1].summary
  null = good["null"]
  length = good["lens"]["norm"]
  assert null["base_against_itself"]["norm"] < 1e-3 * length
  assert null["random"]["norm"] == pytest.approx(length)
  strongest = null["random_strongest_logit"]
  assert 0 < strongest["mean"] <= strongest["max"]
  assert len(good["lens"]["promoted"]) == 10
  json.dumps(good)  # all of it is JSON


def test_what_adds_a_word_to_the_stream_says_that_word(
  place, tmp_path, monkeypatch
):
  """A planted difference: the head's row of w5, in the model's place."""
  problem = make(place, tmp_path)
  row_D = np.asarray(problem.model("base").unembed_VD)[7]
  real = lens._sum

  def pushed(problem, name, again):
    sums_GPD, n_G = real(problem, "base", again)
    push = 0.1 * row_D if name == "bad" else 0
    return sums_GPD + n_G[:, None, None] * push, n_G

  monkeypatch.setattr(lens, "_sum", pushed)
  bad = next(lens.run(problem)).summary
  assert bad["lens"]["nearest"][0] == ["w5", pytest.approx(1, abs=1e-3)]
  assert bad["lens"]["promoted"][0][0] == "w5"
  limit = bad["null"]["random_strongest_logit"]["max"]
  assert bad["lens"]["promoted"][0][1] > limit


def test_a_model_against_itself_says_nothing(place, tmp_path):
  arm = dataclasses.replace(live_problem.ARMS[0], name="same", model="base")
  (part,) = lens.run(make(place, tmp_path, arms=(arm,)))
  assert part.summary["lens"]["norm"] == 0
  assert part.summary["lens"]["promoted"] == []
  assert not part.columns["score"].any()
  assert not part.columns["changed"].any()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 2, 4), (2, 2, 2)])
def test_the_sharded_lens_is_the_unsharded_one(place, tmp_path, shape):
  one, other = (
    next(lens.run(make(place, tmp_path, shape=some)))
    for some in ((1, 1, 1), shape)
  )
  for name in one.directions:
    np.testing.assert_allclose(
      one.directions[name], other.directions[name], atol=CLOSE
    )


def test_groups_and_limits_are_kept(place, tmp_path, monkeypatch):
  problem = make(
    place, tmp_path, groups=5, lens=told(place, contexts=13), batch_size=8
  )
  sums_GPD, n_G = lens.position_sums(problem, "base")
  assert sums_GPD.shape == (5, POSITIONS, problem.evidence.d_model)
  assert n_G.tolist() == [3, 3, 3, 2, 2]
  x_NPD = activations(place, problem, "base")[:13]
  # The first batch of 8 holds two contexts of groups 0, 1 and 2.
  wanted_GPD = [x_NPD[group::5].sum(0) for group in range(5)]
  np.testing.assert_allclose(sums_GPD, wanted_GPD, atol=CLOSE)
  monkeypatch.setattr(lens, "_sum", None)  # kept: not made again
  again_GPD, _ = lens.position_sums(problem, "base")
  np.testing.assert_array_equal(again_GPD, sums_GPD)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"lens": None}, "set lens="),
    ({"skip_positions": 4}, "raise lens.positions"),
    ({"text": {"context_length": 3}}, "make the contexts longer"),
    ({"text": {"context_length": 60}, "positions": 30}, "no context has 30"),
  ],
)
def test_what_is_missing_is_named(place, tmp_path, changes, message):
  lens_changes = {
    k: changes.pop(k) for k in ("text", "positions") if k in changes
  }
  problem = make(
    place, tmp_path, **{"lens": told(place, **lens_changes), **changes}
  )
  with pytest.raises(errors.InputError, match=message):
    list(lens.run(problem))
