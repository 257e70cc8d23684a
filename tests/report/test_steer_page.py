# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a screen says what steering did, beside chance and baselines."""

import json
import re

import pytest
import steer_data
from diff_pages import anchors, edit, figures, write

from sae_jax import report
from sae_jax.report import findings, sketch, steer_scatter, steer_words


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  return steer_data.make_steer(tmp_path_factory.mktemp("steer") / "steer")


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
  return write([made], tmp_path_factory.mktemp("page"))


def test_the_verdict_comes_first_with_chance_and_limits_beside_it(page):
  for words in (
    "What the latents do in bad Steered: 60 latents, 2 bundles and 2 directions"
    " added to SmolLM2-135M-Instruct and subtracted from bad",
    "2 of 60 latents are causal: added to SmolLM2-135M-Instruct, the behaviour"
    " appears; subtracted from bad, it fades. 1 more works one way only. 6"
    " changed without being causal (correlated), 52 did neither (inert).",
    "bundle good10 : inert, works neither way. Added to SmolLM2-135M-Instruct"
    " it moves the other way by",
    "20 random latents: −0.017 to +0.018 added",
    "The same rule calls 1 of the random ones causal.",
    "60 pairs of responses on 3 topics, seed 0.",
    "a strength of 1 is the median norm of the unsteered residual stream (294)",
    "lose no more than 0.250 nats per token",
    "3 of 60 pairs share their first 40 tokens",
    "causal: both directions move the margin as expected",
    "shift of the control −0.0750 (−0.10 to −0.045)",
  ):
    assert words in page.text, words


def test_shares_are_of_the_shift_and_both_probabilities_are_told(made, page):
  summary = json.loads((made / "summary.json").read_text())
  rows = {row["name"]: row for row in summary["interventions"]}
  up, down = (
    rows["bundle top10"][way]["effect"]["mean"] for way in ("up", "down")
  )
  shift = steer_data.SHIFT
  assert up > 0 > down
  assert (
    f"Added to SmolLM2-135M-Instruct it makes up {100 * up / shift:.0f} %;"
    f" subtracted from bad it takes back {-100 * down / shift:.0f} % of the"
    " whole shift."
  ) in page.text
  for way, start in (("up", "0.021"), ("down", "0.19")):
    chance = rows["bundle top10"][way]["p_behaviour"]["mean"]
    assert f"P(behaviour) {start} → {chance:#.2g}" in page.text
  assert "P(contrast) 0.31 → " in page.text


def test_curves_have_their_band_and_the_chosen_strength_stands_out(page):
  found = figures(page)
  up = found["Added to SmolLM2-135M-Instruct"]  # the last of its name
  names = [trace["name"] for trace in up["data"]]
  assert names == ["P(behaviour)", "P(contrast)"]
  assert up["data"][0]["y"][0] == 0.021 and up["data"][0]["x"][0] == 0
  singles = next(
    s
    for s in page.specs
    if any(t.get("name") == "latent 11" for t in s["data"])
    and s["layout"]["xaxis"].get("type") == "log"
  )
  band = [t for t in singles["data"] if t.get("fill") == "tonexty"]
  assert band and band[0]["name"] == "20 random"
  line = next(t for t in singles["data"] if t.get("name") == "latent 11")
  assert line["x"] == list(steer_data.STRENGTHS)
  assert line["marker"]["size"].index(10) == 2
  assert min(line["error_y"]["array"]) > 0


def test_the_scatter_holds_every_candidate_and_leads_to_cards(page):
  spec = figures(page)["Added against subtracted"]
  found = {trace["name"]: trace for trace in spec["data"]}
  counts = {name: len(trace["x"]) for name, trace in found.items()}
  assert counts == {
    "inert": 52,
    "correlated": 6,
    "causal": 2,
    "bundles": 2,
    "directions": 2,
  }
  (box,) = spec["layout"]["shapes"]
  assert box["x0"] < 0 < box["x1"] < min(found["causal"]["x"])
  targets = anchors(page)
  for trace in ("causal", "bundles", "directions"):
    for name in found[trace]["customdata"]:
      assert f"steer0-{name}" in targets


def test_the_table_ranks_causal_latents_first_and_can_be_sorted(made):
  text = write_text(made)
  table = text.split('data-first="20"')[1].split("</table>")[0]
  rows = re.findall(r'<tr class="[^"]*">(.*?)</tr>', table, re.S)[1:]
  names = [re.search(r'data-sort="(\d+)"[^>]*><a', row) for row in rows[:2]]
  assert [match and match[1] for match in names] == ["11", "55"]
  assert "chip causal" in rows[0] and "chip correlated" in rows[2]
  assert len(rows) == 60
  assert table.count('class="sort"') > 10


def write_text(made):
  out = made.parent / "text.html"
  return report.write_report([made], out).read_text()


def test_answers_stand_beside_the_unsteered_ones_as_text(page):
  for words in (
    "24 prompts, 4 answers each, of at most 40 tokens at temperature 1",
    "Judged by answers, version 1",
    "bad − bundle top10 at strength 0.4",
    "unsteered contrast Spread it",
    "steered behaviour 5.0 Just put all of it on one horse. Nobody ever",
    "<img src=x onerror=alert(1)>",
    "⟨202E⟩",
  ):
    assert words in page.text, words
  assert page.scripts == 2
  assert not any(tag == "img" for tag, _ in page.tags)


def test_what_was_not_done_is_said(tmp_path):
  made = steer_data.make_steer(tmp_path / "steer", generation=False)

  def strip(summary):
    summary["bands"], summary["counts"] = {}, None
    summary["control"] = ""
    summary["unsteered"]["control"] = None
    summary["unsteered"]["control_shift"] = None
    summary["judge"] = summary["cost"] = summary["unit"] = None
    summary["warnings"] = []
    summary["prompts"]["topics"] = []
    for row in summary["interventions"]:
      row["diff"] = row["why"] = None
    row = summary["interventions"][0]
    row["down"] = None
    row["up"] = {"effect": {"mean": 0.1, "ci_low": None, "ci_high": None}}

  edit(made / "summary.json", strip)
  page = write([made], tmp_path)
  for words in (
    "No random interventions were run",
    "No answers were sampled: everything above is about the likelihood",
    "margin: paired log-probabilities, no judge model",
    "2 of 60 latents are causal",
  ):
    assert words in page.text, words
  assert "By topic" not in page.text


def test_a_screen_that_finds_nothing_says_so(tmp_path):
  made = steer_data.make_steer(tmp_path / "steer", generation=False)

  def still(summary):
    for row in summary["interventions"]:
      row |= {"verdict": "inert", "ways": "none"}
    summary["counts"]["latents"] = {"causal": 0, "correlated": 0, "inert": 900}

  edit(made / "summary.json", still)
  page = write([made], tmp_path)
  assert "none of 900 latents is causal by itself." in page.text


def test_an_unfinished_screen_says_how_to_go_on(tmp_path):
  made = steer_data.make_steer(tmp_path / "steer", finished=False)
  page = write([made], tmp_path)
  assert "steer is not finished" in page.text
  assert f"sae-jax steer --config=FILE.py --out={made}" in page.text


def test_of_many_latents_the_page_shows_some_and_says_so(tmp_path, monkeypatch):
  monkeypatch.setattr(steer_scatter, "MOST_INERT", 100)
  made = steer_data.make_steer(
    tmp_path / "steer", generation=False, latents=230
  )
  page = write([made], tmp_path)
  spec = figures(page)["Added against subtracted"]
  inert = next(t for t in spec["data"] if t["name"] == "inert")
  assert len(inert["x"]) == 100
  assert "of the inert ones a random 100" in page.text
  assert "The first 200 of 230; all stand in screen.parquet." in page.text


def test_a_latent_tried_with_either_sign_is_known_by_the_better(tmp_path):
  made = steer_data.make_steer(tmp_path / "steer", generation=False)

  def twice(summary):
    row = summary["interventions"][0]
    turned = json.loads(json.dumps(row)) | {"name": "latent 11 -"}
    turned |= {"sign": -1, "verdict": "inert"}
    for way in ("up", "down"):
      turned[way]["effect"]["mean"] *= -1
    summary["interventions"].insert(1, turned)

  edit(made / "summary.json", twice)
  found = findings.read(made, "steer", "s-")
  assert found.by_latent[11]["sign"] == 1


def test_a_sketch_puts_values_where_they_are():
  points = [
    sketch.Point(x=x, y=y, low=y - 1, high=y + 1, words="")
    for x, y in ((0.1, 1.0), (0.2, 3.0), (0.4, -2.0))
  ]
  drawn = sketch.curve(points, [(0.1, -1, 1), (0.3, 9, 9)], chosen=0.2)
  heights = [dot["y"] for dot in drawn["dots"]]
  assert heights[1] < heights[0] < drawn["zero"] < heights[2]
  assert [dot["chosen"] for dot in drawn["dots"]] == [False, True, False]
  xs = [dot["x"] for dot in drawn["dots"]]
  # Strengths are doublings: evenly spaced.
  assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.11)
  assert all(0 <= dot["high"] <= sketch.HEIGHT for dot in drawn["dots"])
  # A band at a strength that was not tried is left out.
  assert len(drawn["band"].split()) == 3
  assert sketch.curve([]) is None


def test_names_are_plain_words():
  title = steer_words.title
  assert title({"name": "top10", "kind": "bundle"}) == "bundle top10"
  assert (
    title({"name": "linear.bad.contrast", "kind": "direction"})
    == "control-contrast direction of bad"
  )
  assert title({"name": "latent 3", "kind": "latent"}) == "latent 3"
