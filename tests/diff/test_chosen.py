# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Cards go to the firsts of every ranking, each latent once."""

import numpy as np
import pytest

from sae_jax.diff import chosen, table

F = 40


def part(method, arm, up=(), down=(), **fields):
  """A part that ranks `up` from the first to the last, and `down`."""
  score_F = np.zeros(F)
  score_F[list(up)] = np.arange(len(up), 0, -1)
  score_F[list(down)] = -np.arange(len(down), 0, -1)
  columns = fields.pop("columns", {})
  return table.Part(
    method=method, arm=arm, columns={"score": score_F} | columns, **fields
  )


def latents(found):
  return [card.latent for card in found]


def test_rankings_take_turns_and_frozen_has_half():
  parts = [
    part("linear", "bad", up=(20, 21, 22, 23), down=(30, 31)),
    part("frozen", "bad", up=(1, 2, 3, 4), down=(10, 11)),
  ]
  assert latents(chosen.choose(parts, {"bad"}, 8)) == [
    *(1, 10, 2, 11),
    *(20, 30, 21, 31),
  ]
  # An odd one goes to frozen; what the others do not use does too.
  assert latents(chosen.choose(parts, {"bad"}, 3)) == [1, 10, 20]
  assert latents(chosen.choose(parts, {"bad"}, 99)) == [
    *(1, 10, 2, 11, 3, 4),
    *(20, 30, 21, 31, 22, 23),
  ]
  assert chosen.choose(parts, {"bad"}, 0) == []


def test_without_frozen_the_first_method_leads():
  parts = [
    part("lens", "bad", up=(1, 2, 3)),
    part("linear", "bad", up=(20, 21, 22)),
  ]
  assert latents(chosen.choose(parts, {"bad"}, 4)) == [1, 2, 20, 21]


def test_a_latent_is_chosen_once_and_says_who_named_it():
  changed_F = np.zeros(F, bool)
  changed_F[5] = True
  parts = [
    part("frozen", "bad", up=(5, 6), columns={"changed": changed_F}),
    part("frozen", "worse", up=(6, 5)),
    part("linear", "bad", up=(7, 8), down=(5,)),
  ]
  found = chosen.choose(parts, {"bad", "worse"}, 4)
  assert latents(found) == [5, 6, 7, 8]
  five, six = found[:2]
  assert five.why == (
    dict(method="frozen", arm="bad", rank=1, direction="risen", changed=True),
    dict(method="frozen", arm="worse", rank=2, direction="risen", changed=None),
    dict(method="linear", arm="bad", rank=1, direction="fallen", changed=None),
  )
  # The one that chose it comes first.
  assert six.why[0]["arm"] == "worse" and six.why[1]["changed"] is False


def test_a_place_far_down_is_no_reason():
  parts = [
    part("frozen", "bad", up=range(20)),
    part("linear", "bad", up=range(19, -1, -1)),
  ]
  (first,) = chosen.choose(parts, {"bad"}, 1)
  assert first.latent == 0
  assert [w["method"] for w in first.why] == ["frozen"]  # 20th by linear
  found = {c.latent: c for c in chosen.choose(parts, {"bad"}, 40)}
  # Its own reason stands, however far down.
  assert [w["rank"] for w in found[10].why] == [11, 10]
  assert len(found) == 20


def test_what_stood_still_gets_no_card():
  nan_F = np.full(F, np.nan)
  still = table.Part(method="lens", arm="bad", columns={"score": nan_F})
  assert chosen.choose([part("frozen", "bad"), still], {"bad"}, 8) == []
  assert chosen.choose([], {"bad"}, 8) == []


@pytest.mark.parametrize(
  ("method", "arm"), [("frozen", "good"), ("frozen_plain", "bad")]
)
def test_controls_and_plain_rankings_choose_nothing(method, arm):
  parts = [part(method, arm, up=(1, 2)), part("frozen", "joint", up=(3,))]
  assert latents(chosen.choose(parts, {"bad", "joint"}, 8)) == [3]


def test_delta_dictionaries_of_two_arms_are_two():
  parts = [
    part("delta", "bad", up=(4, 5), dictionary="delta"),
    part("delta", "worse", up=(4,), dictionary="delta"),
    part("frozen", "bad", up=(4,)),
  ]
  found = chosen.choose(parts, {"bad", "worse"}, 8)
  assert [(c.dictionary, c.arm, c.latent) for c in found] == [
    ("sae", "", 4),
    ("delta", "bad", 4),
    ("delta", "worse", 4),
    ("delta", "bad", 5),
  ]
  assert all(len(card.why) == 1 for card in found)
