# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a screen tries, and what it is compared with."""

import dataclasses

import numpy as np
import planted
import pytest

from sae_jax import errors, formats
from sae_jax.interpret import diff_results
from sae_jax.intervene import bands, candidates, config, screen


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  place = tmp_path_factory.mktemp("candidates")
  planted.write_diff(place / "diff")
  planted.write_sae(place / "sae")
  return place


@pytest.fixture(scope="module")
def decoder(place):
  return formats.open_decoder(place / "sae")


def find(place, decoder, firing=(), **changes):
  told = planted.settings(place, **{"directions": (), **changes})
  return candidates.find(told, decoder, np.array(firing, np.int64)).candidates


def test_the_top_latents_come_by_size_with_the_sign_of_their_change(
  place, decoder
):
  score_F = planted.scores()
  order_F = np.argsort(-np.abs(score_F))
  singles = find(place, decoder, top=7, bundles=())
  assert [c.latents for c in singles] == [(i,) for i in order_F[:7]]
  for rank, (candidate, latent) in enumerate(
    zip(singles, order_F, strict=False), 1
  ):
    assert candidate.sign == np.sign(score_F[latent])
    assert candidate.weights == (float(candidate.sign),)
    assert candidate.score == pytest.approx(score_F[latent])
    assert candidate.rank == rank
    assert candidate.changed == (latent in (planted.CAUSE, planted.SHADOW))


def test_latents_without_a_score_are_no_top_latents(place, decoder):
  singles = find(place, decoder, top=1000, bundles=())
  latents = {c.latents[0] for c in singles}
  without = {*planted.UNSCORED, planted.SILENT}
  assert latents == set(range(planted.LATENTS)) - without


def test_top_0_adds_what_fires_with_either_sign(place, decoder):
  firing = (planted.CAUSE, *planted.UNSCORED)
  singles = find(place, decoder, firing, top=0, bundles=())
  tried = [(c.latents[0], c.sign) for c in singles if c.score is None]
  assert tried == [(i, s) for i in planted.UNSCORED for s in (1, -1)]
  assert len({c.name for c in singles}) == len(singles)
  assert not any(planted.SILENT in c.latents for c in singles)


def test_a_bundle_is_the_sum_of_decoder_rows_by_score(place, decoder):
  (bundle,) = find(
    place,
    decoder,
    latents=(planted.CAUSE,),
    bundles=(config.BundleConfig(name="top3", top=3),),
  )[:1]
  score_F = planted.scores()
  top_N = np.argsort(-np.abs(score_F))[:3]
  assert bundle.latents == tuple(top_N)
  vector_D = score_F[top_N] @ planted.basis()[top_N]
  (unit_D,) = candidates.units([bundle], decoder, {})
  # The table holds scores as float32, rows are float32: a few ulp.
  np.testing.assert_allclose(
    unit_D, vector_D / np.linalg.norm(vector_D), atol=1e-6
  )


@pytest.mark.parametrize("direction, sign", [("up", 1), ("down", -1)])
def test_a_bundle_of_one_direction_holds_no_other_latents(
  place, decoder, direction, sign
):
  bundle = config.BundleConfig(name="one", top=5, direction=direction)
  found = find(place, decoder, latents=(1,), bundles=(bundle,))[0]
  assert len(found.latents) == 5
  assert (sign * np.array(found.weights) > 0).all()


def test_a_bundle_may_come_from_another_arm(place, decoder):
  bundle = config.BundleConfig(
    name="control", top=2, method="frozen_plain", arm="control"
  )
  found = find(place, decoder, latents=(1,), bundles=(bundle,))[0]
  assert set(found.latents) == {planted.CAUSE, planted.SHADOW}
  assert all(weight < 0 for weight in found.weights)


def test_a_bundle_may_be_ranked_by_one_score_and_weighed_by_another(
  place, decoder
):
  for chosen in ({"top": 2}, {"latents": (planted.CAUSE, planted.SHADOW)}):
    bundle = config.BundleConfig(
      name="mixed", method="frozen_plain", weights="frozen", **chosen
    )
    found = find(place, decoder, latents=(1,), bundles=(bundle,))[0]
    assert set(found.latents) == {planted.CAUSE, planted.SHADOW}
    np.testing.assert_allclose(
      found.weights, planted.scores()[list(found.latents)], rtol=1e-6
    )


def test_directions_have_length_1_whatever_they_had(place, decoder):
  told = planted.settings(place, directions=("linear.tuned.contrast",))
  found = candidates.find(told, decoder, np.zeros(0, np.int64))
  (named,) = (c for c in found.candidates if c.kind == "direction")
  (unit_D,) = candidates.units([named], decoder, found.vectors)
  np.testing.assert_allclose(unit_D, planted.basis()[planted.CAUSE], atol=1e-6)


def pool(fires=(), changed=()):
  fires_F = np.zeros(planted.LATENTS, bool)
  changed_F = np.zeros(planted.LATENTS, bool)
  fires_F[list(fires)], changed_F[list(changed)] = True, True
  return bands.Pool(fires_F, changed_F)


def test_random_latents_fire_did_not_change_and_are_no_candidates(
  place, decoder
):
  found = find(place, decoder, top=4, bundles=())
  taken = {c.latents[0] for c in found}
  free = sorted(set(range(planted.LATENTS)) - taken - {30, 31})
  random, warnings = bands.draw(found, pool(range(30), (7,)), 8, seed=0)
  drawn = [c.latents[0] for c in random]
  assert len(set(drawn)) == 8 and set(drawn) <= set(free) - {7}
  assert not warnings
  assert {c.sign for c in random} == {1, -1}
  assert all(c.is_random and c.band == "latent" for c in random)
  assert random == bands.draw(found, pool(range(30), (7,)), 8, seed=0)[0]
  assert random != bands.draw(found, pool(range(30), (7,)), 8, seed=1)[0]


@pytest.mark.parametrize(
  "fires, changed, said",
  [
    (range(4), (), "some are candidates themselves"),
    (range(8), range(6), "some have changed in the diff"),
    ((), (), "some never fire on the prompts"),
  ],
)
def test_what_random_latents_have_to_put_up_with_is_said(
  place, decoder, fires, changed, said
):
  found = find(place, decoder, latents=(0, 1, 2, 3), bundles=())
  random, warnings = bands.draw(found, pool(fires, changed), 4, seed=0)
  assert len(random) == 4
  assert len(warnings) == 1 and said in warnings[0]


def test_random_bundles_have_the_weights_of_their_bundle(place, decoder):
  found = find(
    place,
    decoder,
    top=1,
    bundles=(
      config.BundleConfig(name="top3", top=3),
      config.BundleConfig(name="alike", top=3, direction="up", band="top3"),
      config.BundleConfig(name="top5", top=5),
    ),
  )
  random, _ = bands.draw(found, pool(range(32)), 6, seed=0)
  by_band = {}
  for candidate in random:
    by_band.setdefault(candidate.band, []).append(candidate)
  assert {name: len(some) for name, some in by_band.items()} == {
    "latent": 6,
    "top3": 6,
    "top5": 6,
  }
  for bundle in (c for c in found if c.name in by_band):
    for candidate in by_band[bundle.name]:
      np.testing.assert_allclose(
        sorted(np.abs(candidate.weights)), sorted(np.abs(bundle.weights))
      )
      assert not set(candidate.latents) & set(bundle.latents)
  signs = [np.sign(c.weights).tolist() for c in by_band["top5"]]
  assert len({tuple(s) for s in signs}) > 1
  # Another bundle beside it changes nothing.
  alone, _ = bands.draw(
    [c for c in found if c.name != "top3"], pool(range(32)), 6, 0
  )
  assert [c for c in alone if c.band == "top5"] == by_band["top5"]


def test_a_latent_is_not_compared_with_itself(place, decoder):
  found = find(place, decoder, latents=(0, 1), bundles=())
  random, _ = bands.draw(found, pool(()), 32, seed=0)
  assert len(random) == 32
  for candidate in found:
    others = [random[i] for i in bands.members(random, candidate)]
    assert len(others) == 31
    assert candidate.latents not in [other.latents for other in others]
  assert len(bands.members(random, random[0])) == 31


def test_prompts_are_taken_evenly_over_topics():
  topics = [*"aaaaaa", *"bb", *"ccc"]
  at = screen.stratified(topics, 6)
  assert [topics[i] for i in at] == ["a", "a", "b", "b", "c", "c"]
  assert at.tolist() == [0, 1, 6, 7, 8, 9]
  assert screen.stratified(topics, 0).tolist() == list(range(11))
  assert screen.stratified(topics, 99).tolist() == list(range(11))


@pytest.mark.parametrize(
  "changes, named",
  [
    ({"strengths": ()}, "strengths"),
    ({"strengths": (0.4, 0.2)}, "order them"),
    ({"strengths": (-0.4,)}, "not above 0"),
    ({"strengths": (float("nan"),)}, "not above 0"),
    ({"unit": "direction"}, "unit_direction"),
    ({"unit_direction": "linear.bad.contrast"}, "unit 'direction'"),
    ({"diff": ""}, "needs a diff"),
    ({"diff": "", "latents": (1,), "directions": ("x",)}, "directions"),
    ({"latents": (1, 1)}, "twice"),
    ({"random": 1}, "random=1"),
    ({"hooks": ("nowhere",)}, "nowhere"),
    (
      {"bundles": (config.BundleConfig(name="a"),) * 2},
      "two have the same name",
    ),
    (
      {"bundles": (config.BundleConfig(name="a", band="b"),)},
      "no bundle of 10",
    ),
  ],
)
def test_wrong_settings_are_refused_by_name(place, changes, named):
  with pytest.raises(errors.InputError, match=named):
    planted.settings(place, **changes)


def test_the_diff_reader_ranks_risen_and_fallen_latents(place):
  score_F = planted.scores().astype(np.float32)
  up = diff_results.ranked(place / "diff", direction="up", top=3)
  down = diff_results.ranked(place / "diff", direction="down")
  assert up.latents_N.tolist() == np.argsort(-score_F)[:3].tolist()
  assert (down.scores_N < 0).all() and (np.diff(down.scores_N) >= 0).all()
  assert up.ranks_N.tolist() == [1, 2, 3] and up.arm == "tuned"
  both = diff_results.ranked(place / "diff")
  assert len(both) == np.count_nonzero(score_F)
  assert both.changed_N.tolist() == [True] * 2 + [False] * (len(both) - 2)
  found = diff_results.directions(place / "diff")
  assert set(found) >= {"linear.tuned.contrast"}


def test_the_diff_reader_names_what_there_is(place, tmp_path):
  diff = place / "diff"
  with pytest.raises(errors.InputError, match="frozen/tuned"):
    diff_results.ranked(diff, arm="control")
  with pytest.raises(errors.InputError, match="no column 'colour'"):
    diff_results.columns(diff, ("colour",), method="frozen", arm="tuned")
  with pytest.raises(errors.InputError, match="no directory of a sae-jax diff"):
    diff_results.summary(tmp_path)
  (tmp_path / "config.json").write_text('{"job": "diff"}')
  with pytest.raises(errors.InputError, match="not finished"):
    diff_results.summary(tmp_path)


def test_a_negative_weight_turns_the_direction(place, decoder):
  single = find(place, decoder, latents=(planted.CAUSE,), bundles=())[0]
  turned = dataclasses.replace(single, weights=(-1.0,))
  a_D, b_D = candidates.units([single, turned], decoder, {})
  np.testing.assert_array_equal(a_D, -b_D)
