# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a diff says what the diff found, escaped, controls beside it."""

import json
import re

import diff_card_data
import diff_summary_data
import numpy as np
import plotly.graph_objects
import pytest
from diff_pages import anchors, figures
from test_report import Page

from sae_jax import report
from sae_jax.diff import table
from sae_jax.report import diff_entry, diff_volcano


@pytest.fixture(scope="module")
def text(written_diff):
  return written_diff.read_text()


@pytest.fixture(scope="module")
def page(text):
  return Page(text)


def test_the_verdict_counts_what_the_table_holds(made_diff, page):
  found = table.read(
    made_diff / "latents.parquet",
    ["changed", "score"],
    method="frozen",
    arm="bad",
  )
  rose = np.sum(found["changed"] & (found["score"] > 0))
  fell = np.sum(found["changed"] & (found["score"] < 0))
  assert rose and fell
  for words in (
    f"bad : {rose + fell} of 1,500 latents changed beyond its control good:"
    f" {rose} rose, {fell} fell.",
    "margin −0.335 → −0.124 nats per token, shift +0.211 (+0.162 to +0.263)",
    "The same rule finds 0 in base, captured again and 0.14 on average where",
    "A latent has changed when q ≤ 0.05 (t-test over 60 prompts",
    "difference is larger than running the same model twice",
    "good good − base: what other fine-tuning does",
  ):
    assert words in page.text, words


def test_planted_latents_lead_the_rankings(text):
  ranked = text.split('<table class="ranked">')[1].split("</table>")[0]
  for direction, planted in (
    ("risen", diff_card_data.RISEN),
    ("fallen", diff_card_data.FALLEN[:3]),
  ):
    rows = ranked.split(f'<tbody class="{direction}">')[1].split("</tbody>")[0]
    found = re.findall(
      r'<th scope="row" class="latent">\s*<a [^>]*>(\d+)', rows
    )
    assert tuple(map(int, found[: len(planted)])) == planted
    # Those that pass the rule are the ones not greyed.
    first = rows.split("<tr")[2]
    assert "quiet" not in first.split(">")[0] and "<line" in first


def test_tokens_and_names_stay_text(text, page):
  body = text.rsplit("<main>", 1)[1].split("</main>")[0]
  assert "<img" not in body and "https://x" in page.text
  assert diff_summary_data.MARKUP in page.text
  assert "\u202e" not in body
  assert page.scripts == 2
  # Plotly reads hover text as markup: it gets it escaped once more.
  hovers = [
    words
    for spec in page.specs
    for trace in spec["data"]
    for words in trace["text"]
    if "https" in words
  ]
  assert hovers and not any("<a" in words for words in hovers)
  assert any('&lt;a href="https://x"' in words for words in hovers)


def test_nothing_is_loaded_and_every_link_leads_somewhere(page):
  targets = anchors(page)
  assert len(targets) == len(set(targets))
  for tag, attrs in page.tags:
    for name in ("src", "href", "action", "srcset"):
      link = attrs.get(name) or "data:,"
      assert link.startswith(("#", "data:,")), (tag, attrs)
      assert not link.startswith("#") or link[1:] in targets, link


def test_every_figure_is_valid(page):
  for spec in page.specs:
    plotly.graph_objects.Figure(
      json.loads(re.sub(r"var\(--\w+\)", "#123456", json.dumps(spec)))
    )


def test_volcanoes_hold_what_changed_and_controls_share_their_scale(page):
  found = figures(page)
  bad, good, null = (found[n] for n in ("bad", "good", "base, captured again"))
  names = {trace["name"]: trace for trace in bad["data"]}
  assert {11, 22, 33, 44} == set(names["risen"]["customdata"])
  assert set(names["fallen"]["customdata"]) == set(diff_card_data.FALLEN)
  assert len(names["not changed"]["x"]) == diff_volcano.MOST_OTHERS
  assert [trace["name"] for trace in null["data"]] == ["not changed"]
  for axis in ("xaxis", "yaxis"):
    ranges = [f["layout"][axis]["range"] for f in (bad, good, null)]
    assert ranges[0] == ranges[1] == ranges[2]
  assert "of the others a random 1,000" in page.text


@pytest.mark.parametrize("changed", [700, 4000])
def test_a_volcano_draws_no_more_than_it_may(tmp_path, changed):
  count = 100_000
  rng = np.random.default_rng(0)
  score_F = rng.normal(size=count)
  order = np.argsort(-np.abs(score_F))
  changed_F = np.zeros(count, bool)
  changed_F[order[:changed]] = True
  part = table.Part(
    method="frozen",
    arm="bad",
    columns={
      "score": score_F,
      "p": np.where(changed_F, 0.0, 0.5),
      "q": np.where(changed_F, 0.0, 0.5),
      "changed": changed_F,
    },
  )
  table.write_part(tmp_path / "parts", part)
  table.join(
    tmp_path / "parts", [("frozen", "bad")], tmp_path / "latents.parquet"
  )
  known = diff_entry.Part(
    method="frozen",
    arm="bad",
    dictionary="sae",
    control="",
    changed=changed,
    summary={},
  )
  diff = diff_entry.Diff(
    name="d",
    path=tmp_path,
    prefix="d-",
    config=None,
    manifest=None,
    summary=None,
    cards=None,
    arms=(),
    parts=(known,),
  )
  ((_, figure),) = diff_volcano.figures(diff, [known])
  traces = {trace["name"]: trace for trace in figure.spec["data"]}
  drawn = traces["risen"]["customdata"] + traces["fallen"]["customdata"]
  most = min(changed, diff_volcano.MOST_CHANGED)
  assert sorted(drawn) == sorted(order[:most].tolist())
  assert len(traces["not changed"]["x"]) == diff_volcano.MOST_OTHERS
  assert np.isfinite(traces["risen"]["y"]).all()  # p underflowed to 0
  assert ("the 1,500 largest are drawn" in figure.caption) == (changed > 1500)
  assert len(json.dumps(figure.spec)) < 400_000


def test_cards_show_every_model_on_one_scale(made_diff, text, page):
  cards = json.loads((made_diff / "cards.json").read_text())["cards"]
  assert page.count("article", "card") == len(cards)
  shown = text.split('id="d-sae-11"')[1].split("</article>")[0]
  first = shown.split('<ol class="contexts paired">')[1].split("</li>")[0]
  names = re.findall(r'<span class="model">(\w+) <b>([\d.]+)', first)
  assert [name for name, _ in names] == ["base", "bad", "realigned", "good"]
  picked = re.findall(
    r'class="t at" data-v="([\d.]+)" style="--a:([\d.]+)"', first
  )
  assert [value for value, _ in picked] == [value for _, value in names]
  highest = max(float(value) for value, _ in picked)
  for value, shade in picked:
    # Two digits of a share, three of a value.
    assert float(shade) == pytest.approx(float(value) / highest, abs=0.006)
  assert first.count("not in the store") == 0
  assert "label by some-chat-model; tested: detection 0.87" in page.text
  assert "No label: the reply has no line LABEL: …." in page.text
  assert "Contexts: prompts, the strongest 8 of 9" in page.text


def test_baselines_and_methods_are_there(page):
  for words in (
    "bad 8.5 % 7.8 % 3e-05 % 0.65 0.97 (0.95 to 0.98)",
    "stronger than chance: strongest word 5.30, of 20 random directions 4.10",
    "Spearman correlation",
    "Shared of the top 100",
    "Δ-attribution: bad − base; 5 changed",
    "Stage-wise",
    "then model",
    "best partner",
    "Benign fine-tuning",
  ):
    assert words in page.text, words
  assert {"Principal components", "How far predictions moved"} <= set(
    figures(page)
  )


def test_it_reads_only_what_it_needs_and_writes_the_same_twice(
  made_diff, text, tmp_path, monkeypatch
):
  read, asked = table.read, []

  def watched(path, columns=None, **filters):
    asked.append((columns, filters))
    return read(path, columns, **filters)

  monkeypatch.setattr(table, "read", watched)
  again = report.write_report([made_diff], tmp_path / "again.html")
  assert again.read_text() == text
  assert asked
  for columns, filters in asked:
    assert columns and len(columns) < len(table.COLUMNS)
    assert filters["method"] and filters["arm"]
