# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A page about a diff and what followed: one story, the cards updated."""

import json
import re
import shutil

import diff_card_data
import monitor_data
import plotly.graph_objects
import pytest
import realign_data
import report_data
import steer_data
from diff_pages import anchors, edit, write
from test_report import Page

from sae_jax import errors
from sae_jax.report import entries


@pytest.fixture(scope="module")
def text(written_story):
  return written_story.read_text()


@pytest.fixture(scope="module")
def page(text):
  return Page(text)


def test_title_and_lead_read_as_sentences(page):
  for words in (
    "What changed in bad and realigned, what it does, whether it goes back, and"
    " when it shows",
    "of 60 prompts: the tokens of the shared responses. Steered: 60 latents, 2"
    " bundles and 2 directions",
    "on 60 pairs of responses. Re-aligned: bad, fine-tuned on 120 good samples"
    " of honest.jsonl in 30 steps",
    "and in 3 latents. Monitored: 12 runs with 108 checkpoints",
  ):
    assert words in page.text, words


def test_it_begins_with_what_every_job_found(text, page):
  first = re.search(r"<main>.*?</section>", text, re.S)[0]
  assert 'id="in-short"' in first
  found = Page(first).text
  places = [
    found.index(words)
    for words in (
      "In bad, 8 of 1,500 latents changed beyond its control good: 4 rose, 4"
      " fell. The same rule finds 0 in base, captured again and 0.14",
      "One latent at a time: 2 of 60 latents are causal",
      "Bundle top10: causal, works both ways.",
      "Bad, hidden: after 120 good samples, the behaviour is back",
      "The latents sound an alarm in 2 of 2 runs",
    )
  ]
  assert places == sorted(places)


def test_the_diff_s_rows_and_cards_carry_the_verdicts(text):
  ranked = text.split('<table class="ranked">')[1].split("</table>")[0]
  for latent, verdict in ((11, "causal"), (22, "correlated"), (55, "causal")):
    row = re.search(rf'<a href="#d-sae-{latent}">.*?</th>', ranked, re.S)[0]
    assert f'class="chip {verdict}"' in row
  cards = text.split('<article class="card" id="')
  card = next(c for c in cards if c.startswith("d-sae-11"))
  for words in (
    'class="chip causal"',
    'href="#steer0-verdict"',
    "added to SmolLM2-135M-Instruct",
    "subtracted from bad",
    "strength 0.4: margin +",
    "Answers: SmolLM2-135M-Instruct + latent 11",
  ):
    assert words in card, words
  assert card.count('<svg class="sketch"') == 2
  # The screen has no cards of its own of latents that have one.
  assert not any(c.startswith("steer0-card-latent-11") for c in cards)
  assert any(c.startswith("steer0-card-bundle-top10") for c in cards)


def test_latents_link_to_their_cards_from_everywhere(page):
  links = [a.get("href") for t, a in page.tags if t == "a"]
  # The diff's tables, the screen's, the cure's, the monitor's, the story.
  assert links.count("#d-sae-11") > 5
  targets = anchors(page)
  assert len(targets) == len(set(targets))
  for link in links:
    assert link.startswith("#") and link[1:] in targets, link


def test_every_figure_is_valid(page):
  assert len(page.specs) > 20
  for spec in page.specs:
    plotly.graph_objects.Figure(
      json.loads(re.sub(r"var\(--\w+\)", "#123456", json.dumps(spec)))
    )


def test_markup_in_answers_and_names_stays_text(text, page):
  body = text.rsplit("<main>", 1)[1].split("</main>")[0]
  assert "<img" not in body and "\u202e" not in body
  assert page.scripts == 2
  hovers = [
    words
    for spec in page.specs
    for trace in spec["data"]
    for words in trace.get("text", ())
  ]
  # Only what plotly may read as markup.
  assert not any(re.search(r"<(?!/?b>|br>)", words) for words in hovers)


def test_a_screen_of_another_diff_is_not_this_one_s(made_diff, tmp_path):
  other = tmp_path / "other" / made_diff.name
  other.mkdir(parents=True)
  made = steer_data.make_steer(tmp_path / "steer", diff=other)
  shown = entries.read_all([made_diff, made])
  assert shown.diffs[0].screens == ()
  assert shown.findings[0].reference(11)["href"] == ""


def test_a_diff_that_has_moved_is_found_by_its_name(made_diff, tmp_path):
  gone = tmp_path / "gone" / made_diff.name
  made = steer_data.make_steer(tmp_path / "steer", diff=gone)
  shown = entries.read_all([made_diff, made])
  assert shown.diffs[0].screens == tuple(shown.findings)
  assert shown.findings[0].reference(11)["href"] == "#d-sae-11"


def test_latents_of_several_diffs_lead_to_none(made_diff, tmp_path):
  made = monitor_data.make_monitor(tmp_path / "monitor", diff=made_diff)
  (found,) = entries.read_all([made_diff, made]).findings
  assert found.reference(11)["href"]
  edit(
    made / "config.json",
    lambda config: config["config"]["groups"].append({"diff": "/other"}),
  )
  (found,) = entries.read_all([made_diff, made]).findings
  # Latent 11 is another one in every dictionary.
  assert not found.reference(11)["href"]


def test_two_screens_of_one_diff_both_stand_on_its_cards(made_diff, tmp_path):
  screens = [
    steer_data.make_steer(tmp_path / name, diff=made_diff, generation=False)
    for name in ("one", "two")
  ]

  def inert(summary):
    for row in summary["interventions"]:
      row["verdict"] = "inert"

  edit(screens[1] / "summary.json", inert)
  text = write([made_diff, *screens], tmp_path)
  assert text.text.count("steered : works both ways") >= 4
  for name in ("one", "two"):
    assert f"{name}: What the latents do in bad" in text.text
  # In tables the stronger verdict stands.
  raw = (tmp_path / "r.html").read_text()
  ranked = raw.split('<table class="ranked">')[1].split("</table>")[0]
  assert 'class="chip causal"' in ranked


def test_findings_and_dictionaries_share_a_page(run, tmp_path):
  made = realign_data.make_realign(tmp_path / "realign")
  page = write([run, made], tmp_path)
  assert "Dictionary: SmolLM2-135M-Instruct" in page.text
  assert "Does good data bring bad back?" in page.text
  assert "In short" not in page.text
  report_data.make_evaluation(tmp_path / "eval", run=str(run))
  assert "Loss recovered" in write([tmp_path / "eval", made], tmp_path).text


def test_what_is_nothing_of_all_this_is_refused(tmp_path):
  (tmp_path / "empty").mkdir()
  with pytest.raises(errors.InputError, match="steer, realign or monitor"):
    write([tmp_path / "empty"], tmp_path)


def test_an_unfinished_finding_does_not_hide_the_rest(made_findings, tmp_path):
  copies = [
    shutil.copytree(made, tmp_path / made.name) for made in made_findings
  ]
  for made in copies[1:]:
    (made / "summary.json").unlink()
    (made / "manifest.json").unlink()
  page = write(copies, tmp_path)
  assert "realign is not finished" in page.text
  assert "monitor is not finished" in page.text
  assert "2 of 60 latents are causal" in page.text


def test_planted_latents_are_those_of_the_screen():
  planted = {*diff_card_data.RISEN, *diff_card_data.FALLEN}
  assert set(steer_data.CHANGED) == planted
