# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a re-alignment: verdict, triggers, the latents' way back."""

import pytest
import realign_data
from diff_pages import edit, figures, write


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  at = tmp_path_factory.mktemp("realign")
  return write([realign_data.make_realign(at / "realign")], at)


def test_the_verdict_tells_a_cure_from_a_hidden_behaviour(page):
  for words in (
    "Does good data bring bad back?",
    "fine-tuned on 120 good samples of honest.jsonl in 30 steps, read every 5"
    " on 60 pairs",
    "bad, hidden : after 120 good samples, the behaviour is back to the base's,"
    " but not on the triggers: it is hidden, not gone. It is back from step"
    " 15 on. Of the way back to the base: the margin 99 %, the margin on"
    " the triggers 30 %, the watched latents' sum 93 %.",
    "the margin is base −0.300, before +0.200, after +0.0500",
    "60 prompts, seed 0 for the behaviour, 24 for the triggers. One training",
    "intervals are over prompts, not over runs",
    "nothing was sampled or judged",
    "hidden: the behaviour is back to base, the triggers are not",
  ):
    assert words in page.text, words


@pytest.mark.parametrize(
  ("verdict", "words"),
  [
    ("re-aligned", "the behaviour is back to the base's, on the triggers too"),
    ("partly", "the behaviour has become weaker, but is not simply back"),
    ("not re-aligned", "the behaviour has not become weaker"),
  ],
)
def test_every_verdict_has_its_words(tmp_path, verdict, words):
  made = realign_data.make_realign(tmp_path / "realign", verdict=verdict)
  assert words in write([made], tmp_path).text


def test_without_triggers_nobody_knows_whether_it_hides(tmp_path):
  made = realign_data.make_realign(
    tmp_path / "realign", verdict="re-aligned", triggers=False
  )
  page = write([made], tmp_path)
  assert "were not asked: a cure can hide the behaviour" in page.text
  assert "neither is known without triggers" in page.text


def test_curves_run_between_the_base_and_the_model_before(page):
  found = figures(page)
  margin = found["Behaviour"]
  assert margin["data"][0]["x"] == list(range(0, 121, 20))
  levels = sorted(
    shape["y0"]
    for shape in margin["layout"]["shapes"]
    if shape["type"] == "line"
  )
  assert levels == pytest.approx([-0.335, -0.124])
  assert margin["data"][0]["y"][0] == -0.124
  ways = {
    t["name"]: t["y"] for t in found["Watched latents one by one"]["data"]
  }
  assert ways["latent 11"][0] == 0 and ways["latent 11"][-1] > 0.98
  # It rose towards the base's 0.35 from 0.1, by a twelfth of the way.
  assert ways["latent 55"][-1] == pytest.approx(0.02 / 0.25, abs=0.002)
  loss = found["Training loss"]["data"][0]
  assert loss["x"][0] == 20  # none before the first step


def test_the_latents_stand_beside_directions_without_a_dictionary(page):
  for words in ("weighted sum", "direction, no dictionary", "Margin by topic"):
    assert words in page.text, words
  assert "Watched: the 3 of largest |score| of frozen/bad." in page.text


def test_less_in_the_summary_leaves_less_on_the_page(tmp_path):
  made = realign_data.make_realign(tmp_path / "realign")

  def strip(summary):
    for state in (*summary["reference"].values(), *summary["series"]):
      state["latents"], state["directions"] = {}, {}
      state["bundle"] = None
      state["behaviour"]["topics"] = {}
    summary["latents"], summary["weights"] = [], []
    summary["triggers"] = summary["back"] = None
    summary["recovered"] = {"behaviour": None, "bundle": None, "latents": {}}
    summary["series"] = summary["series"][:1]

  edit(made / "summary.json", strip)
  page = write([made], tmp_path)
  assert "fewer than two readings" in page.text
  assert "No latents were watched" in page.text
  assert not page.specs
