# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A sweep's page holds every member, says what of, and stays comparable."""

import json
import re
import shutil

import plotly.graph_objects
import pytest
import sweep_data
from diff_pages import anchors, figures, write
from test_report import Page

from sae_jax import report
from sae_jax.report import (
  sweep_entry,
  sweep_words,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """16 members, two of which diverged; 14 and 15 are evaluated."""
  run = sweep_data.make_sweep(
    tmp_path_factory.mktemp("made") / "sweep", frozen={7: 140, 11: 301}
  )
  for member in (14, 2):
    sweep_data.make_evaluation(run / "eval" / str(member), run, member)
  return run


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
  out = tmp_path_factory.mktemp("page") / "page.html"
  return report.write_report([made], out).read_text()


@pytest.fixture(scope="module")
def page(written):
  return Page(written)


def table(text, n=0):
  """(headings, rows of texts) of a sortable table."""
  found = re.findall(r'<table class="grid".*?</table>', text, re.S)[n]
  head, body = found.split("<tbody>")

  def texts(part, tag):
    cells = re.findall(rf"<{tag}[ >].*?</{tag}>", part, re.S)
    return [" ".join(re.sub(r"<.*?>", " ", c).split()) for c in cells]

  rows = re.findall(r"<tr.*?</tr>", body, re.S)
  heads = texts(head.rsplit("<tr>", 1)[1], "th")
  return heads, [texts(row, "th") + texts(row, "td") for row in rows]


def test_it_says_what_the_sweep_is(page):
  for words in (
    "Sweep of 16 dictionaries, SmolLM2-135M-Instruct, blocks.9.hook_resid_post",
    "sweep: 16 sparse autoencoders of 4,608 latents, trained on the same tokens"
    " in one run; k 16, 32, 64 and 128; learning rate 1e-4, 2e-4, 4e-4 and"
    " 8e-4",
    "Members 16 2 diverged",
    "Training tokens 1.23 M 600 steps, the same for every member",
    "Wall time 15 min 14 s",
    "All members: hook blocks.9.hook_resid_post, AuxK coefficient 0.03125,"
    " seed 0",
    "Member 7: k 32, lr 8e-4, at step 140; Member 11: k 64, lr 8e-4, at step"
    " 301",
  ):
    assert words in page.text, words
  targets = anchors(page)
  assert len(targets) == len(set(targets))


def test_a_row_for_every_member_with_the_rows_its_numbers_are_of(written, made):
  heads, rows = table(written)
  assert heads[:5] == ["member", "k", "learning rate", "FVU", "L0"]
  assert heads[5:7] == ["dead latents", "AuxK"]
  assert [row[0].split()[0] for row in rows] == [str(i) for i in range(16)]
  assert rows[7][0] == "7 diverged at step 140"
  assert rows[6][1:3] == ["32", "4e-4"]
  lines = (made / "members" / "6" / "metrics.jsonl").read_text().splitlines()
  looks = [json.loads(line) for line in lines if "eval/fvu" in line]
  last = json.loads(lines[-1])
  assert float(rows[6][3]) == pytest.approx(looks[-1]["eval/fvu"], rel=1e-3)
  assert float(rows[6][6]) == pytest.approx(last["train/auxk"], rel=1e-3)
  groups_row = written.split('<tr class="over">')[1].split("</tr>")[0]
  for words in ("settings", "held-out sample", "last training step"):
    assert words in groups_row
  at = heads.index("diverged")
  assert {i: row[at] for i, row in enumerate(rows) if row[at]} == {
    7: "step 140",
    11: "step 301",
  }
  # Numbers sort as numbers.
  assert 'data-sort="0.0004">4e-4' in written
  assert written.count('<tr class="quiet last" id="sweep0-member-') == 2


def test_evaluations_stand_beside_training(written, made):
  heads, rows = table(written)
  recovered = heads.index("loss recovered")
  assert [i for i, row in enumerate(rows) if row[recovered] != "–"] == [2, 14]
  heads, rows = table(written, 1)
  assert [row[0] for row in rows] == ["2", "14"]
  assert rows[1][heads.index("CE spliced, nats")] == "2.731"
  assert rows[1][heads.index("rows")] == "16,384"
  assert "0.9511 to 0.9624" in rows[1]
  text = Page(written).text
  assert "14 of 16 members not evaluated yet" in text
  assert "for i in 0 1 3 4 5 6 7 8 9 10 11 12 13 15; do" in text
  assert f"--config.run={made}/sae/$i --out={made}/eval/$i done" in text


def test_every_figure_is_valid_and_has_every_member(page):
  shown = figures(page)
  for spec in page.specs:
    plotly.graph_objects.Figure(
      json.loads(re.sub(r"var\(--\w+\)", "#123456", json.dumps(spec)))
    )
  for title in ("FVU", "FVU, held-out rows", "L0", "Dead latents", "AuxK"):
    curves = shown[title]["data"]
    lines = [trace for trace in curves if trace["mode"] == "lines"]
    crosses = [t for t in curves if t["mode"] == "markers"]
    assert len(lines) == 16, title
    assert [t["marker"]["symbol"] for t in crosses] == ["x", "x"], title
  assert "Tokens per second" in shown and "Members in training" in shown
  assert "train/grad_norm" in shown


def test_a_curve_that_exploded_does_not_flatten_the_others(page):
  layout = figures(page)["AuxK"]["layout"]
  assert "range" not in layout["yaxis"]  # nothing exploded there
  spec = figures(page)["train/grad_norm"]
  whole = [
    max(trace["y"])
    for trace in spec["data"]
    if trace["mode"] == "lines" and "diverged" not in trace["name"]
  ]
  low, high = spec["layout"]["yaxis"]["range"]
  assert max(whole) < high < 1.2 * max(whole)
  crosses = [t for t in spec["data"] if t["mode"] == "markers"]
  assert all(low <= t["y"][0] <= high for t in crosses)
  assert all("diverged at step" in t["name"] for t in crosses)


def test_colours_are_learning_rates_and_the_key_names_them(written, page):
  keys = re.findall(r'data-group="(\w+-g\d)" aria-pressed="true"', written)
  assert keys == [f"sweep0-g{i}" for i in range(4)] * 3  # of three sections
  marks = [
    trace
    for trace in figures(page)["FVU against L0"]["data"]
    if trace["mode"] == "markers"
  ]
  assert [t["legendgroup"] for t in marks] == sorted(set(keys))
  assert len({t["marker"]["color"] for t in marks}) == 4
  # Not by colour alone.
  symbols = [[s for s in t["marker"]["symbol"] if s != "x"] for t in marks]
  assert len({s for some in symbols for s in some}) == 4
  assert all(len(set(some)) == 1 for some in symbols)


def test_the_frontier_is_joined_and_leads_to_rows(page, made):
  spec = figures(page)["FVU against L0"]
  line, *marks = spec["data"]
  assert line["x"] == sorted(line["x"])
  assert line["y"] == sorted(line["y"], reverse=True)
  # 4 sparsities, and at each one learning rate is the best.
  assert len(line["x"]) == 4
  hovers = [words for trace in marks for words in trace["text"]]
  assert len(hovers) == 16
  best = [words for words in hovers if "on the frontier" in words]
  assert len(best) == 4 and not any("diverged" in words for words in best)
  targets = {place for trace in marks for place in trace["customdata"]}
  assert {f"sweep0-{place}" for place in targets} <= set(anchors(page))
  assert spec["layout"]["xaxis"]["type"] == "log"  # 16 to 128
  assert "of a fixed sample of held-out rows, at the last look" in page.text


def test_evaluations_of_all_replace_what_training_saw(tmp_path):
  run = sweep_data.make_sweep(
    tmp_path / "sweep", sweep=[{"k": k} for k in (16, 32, 64)]
  )
  for member, fvu in enumerate((0.3, 0.2, 0.25)):
    sweep_data.make_evaluation(
      tmp_path / f"e{member}", run, member, fvu=fvu, l0=16.0 * 2**member
    )
  given = [tmp_path / f"e{member}" for member in range(3)]
  page = write([*given, run], tmp_path)
  spec = figures(page)["FVU against L0"]
  assert spec["data"][0]["y"] == [0.3, 0.2]
  assert "of the rows of its evaluation" in page.text
  assert "Lowest FVU 0.200 member 1: k 32" in page.text
  assert "has not been evaluated" not in page.text  # no other dictionary


def test_a_frontier_for_each_hook(tmp_path):
  hooks = [f"blocks.{layer}.hook_resid_post" for layer in (12, 3, 9)]
  sweep = [{"k": k, "hook": hook} for hook in hooks for k in (16, 64)]
  run = sweep_data.make_sweep(tmp_path / "sweep", sweep=sweep)
  page = write([run], tmp_path)
  spec = figures(page)["FVU against L0"]
  lines = [t for t in spec["data"] if "lines" in t["mode"]]
  assert len(lines) == 3
  assert len({t["legendgroup"] for t in lines}) == 3
  assert "A frontier is drawn for each hook and store" in page.text
  assert "Lowest FVU" not in page.text
  # Layers in order, not in that of their letters.
  shown = sweep_entry.read(run, "sweep", "s-", [])
  assert sweep_words.values(shown, "hook") == [hooks[1], hooks[2], hooks[0]]


def test_a_sweep_under_way_shows_what_is_there(tmp_path):
  run = sweep_data.make_sweep(tmp_path / "sweep", done=200, frozen={5: 90})
  page = write([run], tmp_path)
  assert "sweep is not finished" in page.text
  assert "199 of 600 steps" in page.text
  assert "Member 5: k 32, lr 2e-4, after step 88" in page.text
  assert "members not evaluated yet" not in page.text
  heads, rows = table((tmp_path / "r.html").read_text())
  assert len(rows) == 16 and "diverged" in heads


def test_a_sweep_that_has_only_begun(tmp_path):
  run = sweep_data.make_sweep(tmp_path / "sweep", done=0)
  shutil.rmtree(run / "members")
  (run / "metrics.jsonl").unlink()
  page = write([run], tmp_path)
  assert "No step has been logged yet" in page.text
  assert "No member has logged an FVU" in page.text
  assert "0 of 600 steps" in page.text
  _, rows = table((tmp_path / "r.html").read_text())
  assert rows[3][:3] == ["3", "16", "8e-4"]


def test_all_members_diverged(tmp_path):
  run = sweep_data.make_sweep(
    tmp_path / "sweep", sweep=[{"k": 16}, {"k": 32}], frozen={0: 200, 1: 220}
  )
  page = write([run], tmp_path)
  assert "2 diverged" in page.text
  spec = figures(page)["FVU against L0"]
  assert [t["mode"] for t in spec["data"]] == ["markers", "markers"]


def test_names_from_configs_are_escaped(tmp_path):
  hook = "<script>alert(1)</script>%{x}"
  run = sweep_data.make_sweep(
    tmp_path / "a<b>&c", sweep=[{"hook": hook}, {"k": 64}]
  )
  page = write([run], tmp_path)
  assert page.scripts == 2
  hovers = [
    words
    for trace in figures(page)["FVU against L0"]["data"]
    for words in trace.get("text", ())
  ]
  assert any("&lt;script&gt;" in words for words in hovers)
  assert not any("<script>" in words for words in hovers)


def test_a_sweep_that_has_moved_keeps_its_evaluations(tmp_path):
  run = sweep_data.make_sweep(tmp_path / "a" / "sweep", sweep=[{"k": 16}])
  sweep_data.make_evaluation(run / "eval" / "0", run, 0, fvu=0.123)
  outside = sweep_data.make_evaluation(tmp_path / "e", run, 0, fvu=0.456)
  moved = shutil.move(run, tmp_path / "sweep")
  assert "Lowest FVU 0.123" in write([moved], tmp_path).text
  # The one that is named comes first; the other is not lost without a word.
  page = write([moved, outside], tmp_path)
  assert "Lowest FVU 0.456" in page.text
  assert f"a member that has another: {moved}/eval/0" in page.text


def test_a_line_that_is_being_written_is_no_divergence(tmp_path):
  run = sweep_data.make_sweep(tmp_path / "sweep", done=200, frozen={5: 90})
  log = run / "members" / "9" / "metrics.jsonl"
  log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
  shown = sweep_entry.read(run, "sweep", "s-", [])
  ended = {m.index: m.frozen_at for m in shown.members if m.frozen_at}
  assert ended == {5: 89}
