# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a diff says what the diff found, escaped, controls beside it."""

import json
import re
import shutil

import diff_data
import numpy as np
import plotly.graph_objects
import pytest
import report_data
from test_report import Page

from sae_jax import errors, report
from sae_jax.diff import table
from sae_jax.report import diff_entry, diff_volcano


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  return diff_data.make_diff(tmp_path_factory.mktemp("made") / "diff")


@pytest.fixture
def diff(made, tmp_path):
  return shutil.copytree(made, tmp_path / "diff")


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
  out = tmp_path_factory.mktemp("page") / "page.html"
  return report.write_report([made], out).read_text()


@pytest.fixture(scope="module")
def page(written):
  return Page(written)


def write(paths, tmp_path):
  return Page(report.write_report(paths, tmp_path / "r.html").read_text())


def edit(path, change):
  value = json.loads(path.read_text())
  change(value)
  path.write_text(json.dumps(value))


def figures(page):
  return {
    a["aria-label"].split(".")[0]: spec
    for (_, a), spec in zip(
      [t for t in page.tags if "plot" in (t[1].get("class") or "").split()],
      page.specs,
      strict=True,
    )
  }


def anchors(page):
  return [a["id"] for _, a in page.tags if a.get("id")]


def test_the_verdict_counts_what_the_table_holds(made, page):
  found = table.read(
    made / "latents.parquet", ["changed", "score"], method="frozen", arm="bad"
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


def test_planted_latents_lead_the_rankings(written):
  ranked = written.split('<table class="ranked">')[1].split("</table>")[0]
  for direction, planted in (
    ("risen", diff_data.RISEN),
    ("fallen", diff_data.FALLEN[:3]),
  ):
    rows = ranked.split(f'<tbody class="{direction}">')[1].split("</tbody>")[0]
    found = re.findall(
      r'<th scope="row" class="latent">\s*<a [^>]*>(\d+)', rows
    )
    assert tuple(map(int, found[: len(planted)])) == planted
    # Those that pass the rule are the ones not greyed.
    first = rows.split("<tr")[2]
    assert "quiet" not in first.split(">")[0] and "<line" in first


def test_tokens_and_names_stay_text(written, page):
  body = written.rsplit("<main>", 1)[1].split("</main>")[0]
  assert "<img" not in body and "https://x" in page.text
  assert diff_data.MARKUP in page.text
  assert "\u202e" not in body
  assert page.scripts == 2
  # Plotly reads hover text as markup: it gets it escaped once more.
  hovers = [
    text
    for spec in page.specs
    for trace in spec["data"]
    for text in trace["text"]
    if "https" in text
  ]
  assert hovers and not any("<a" in text for text in hovers)
  assert any('&lt;a href="https://x"' in text for text in hovers)


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
  assert set(names["fallen"]["customdata"]) == set(diff_data.FALLEN)
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


def test_cards_show_every_model_on_one_scale(made, written, page):
  cards = json.loads((made / "cards.json").read_text())["cards"]
  assert page.count("article", "card") == len(cards)
  shown = written.split('id="d-sae-11"')[1].split("</article>")[0]
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


def test_an_unfinished_diff_says_how_far_it_is(diff, tmp_path):
  for name in ("manifest.json", "summary.json", "cards.json"):
    (diff / name).unlink()
  (diff / "latents.parquet").unlink()
  page = write([diff], tmp_path)
  assert "is not finished" in page.text
  assert "Finished so far: attribution.bad, delta.bad" in page.text
  assert f"sae-jax diff --config=FILE.py --out={diff}" in page.text


def test_what_is_missing_is_said(diff, tmp_path):
  (diff / "cards.json").unlink()

  def strip(summary):
    summary["parts"] = [
      p | {"control": ""}
      for p in summary["parts"]
      if (p["method"], p["arm"]) == ("frozen", "bad")
    ]
    summary["controls"] = {}
    summary["agreement"] = {
      "labels": ["frozen/bad"],
      "spearman": [[1.0]],
      "overlap": [[1.0]],
      "top": 100,
    }
    summary["warnings"] = ["bad: no matched control <b>"]

  edit(diff / "summary.json", strip)
  page = write([diff], tmp_path)
  for words in (
    "No control tells how many latents the same rule finds in nothing",
    "It has no control: part of this is any fine-tuning's style.",
    "There are no cards of latents.",
    "--config.cards.latents=24",
    "There are no controls.",
    "Only one method ranked the latents",
    "There is no baseline without a dictionary beside the claims.",
    "bad: no matched control <b>",
  ):
    assert words in page.text, words


def test_methods_without_a_test_make_no_claim(diff, tmp_path):
  edit(
    diff / "summary.json",
    lambda s: s.update(
      parts=[p for p in s["parts"] if p["method"] in ("match", "stagewise")]
    ),
  )
  page = write([diff], tmp_path)
  assert "No method that tests latents was run" in page.text
  assert "No method that gives p-values was run" in page.text


def test_a_model_against_itself_has_nothing_to_report(tmp_path):
  path = diff_data.make_diff(tmp_path / "same", latents=200, still=True)
  page = write([path], tmp_path)
  assert "bad : no latent of 200 changed beyond its control good." in page.text
  assert not any(
    trace["name"] in ("risen", "fallen")
    for name, spec in figures(page).items()
    if name in ("bad", "realigned", "good", "base, captured again")
    for trace in spec["data"]
  )


def test_only_needed_columns_are_read(diff, tmp_path, monkeypatch):
  read, asked = table.read, []

  def watched(path, columns=None, **filters):
    asked.append((columns, filters))
    return read(path, columns, **filters)

  monkeypatch.setattr(table, "read", watched)
  write([diff], tmp_path)
  assert asked
  for columns, filters in asked:
    assert columns and len(columns) < len(table.COLUMNS)
    assert filters["method"] and filters["arm"]


def test_diffs_runs_and_evaluations_share_a_page(diff, tmp_path):
  other = shutil.copytree(diff, tmp_path / "other")
  run = report_data.make_run(tmp_path / "run")
  evaluation = report_data.make_evaluation(tmp_path / "eval", run=str(run))
  page = write([run, diff, evaluation, other], tmp_path)
  targets = anchors(page)
  assert len(targets) == len(set(targets))
  groups = [a for t, a in page.tags if t == "p" and a.get("class") == "group"]
  assert len(groups) == 3
  assert page.text.index("Verdict") < page.text.index("Loss recovered")
  assert "other: What changed in bad and realigned" in page.text
  for _, attrs in page.tags:
    link = attrs.get("href") or ""
    assert not link.startswith("#") or link[1:] in targets


def test_the_page_does_not_depend_on_when_it_is_made(made, written, tmp_path):
  again = report.write_report([made], tmp_path / "again.html")
  assert again.read_text() == written


def test_a_broken_summary_is_named(diff, tmp_path):
  (diff / "summary.json").write_text("{")
  with pytest.raises(errors.InputError, match=r"summary\.json"):
    write([diff], tmp_path)
