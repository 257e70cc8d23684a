# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page holds what the artifacts hold, escaped, and nothing from outside."""

import html.parser
import json
import re
import shutil

import numpy as np
import plotly.graph_objects
import pytest
import report_data

from sae_jax import errors, report
from sae_jax.report import latents, plots, say


class Page(html.parser.HTMLParser):
  """Text, tags and figure specs of a page, apart from scripts and styles."""

  def __init__(self, text):
    super().__init__()
    self.words, self.tags, self.specs, self.scripts = [], [], [], 0
    self._inside = None
    self.feed(text)
    self.text = " ".join(" ".join(self.words).split())

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag in ("script", "style"):
      kind = dict(attrs).get("type")
      self._inside = "spec" if kind == "application/json" else tag
      self.scripts += self._inside == "script"

  def handle_endtag(self, tag):
    if tag in ("script", "style"):
      self._inside = None

  def handle_data(self, data):
    if self._inside == "spec":
      self.specs.append(json.loads(data))
    elif self._inside is None:
      self.words.append(data)

  def count(self, tag, name):
    return sum(
      t == tag and name in (a.get("class") or "").split() for t, a in self.tags
    )


def write(paths, tmp_path):
  out = report.write_report(paths, tmp_path / "out" / "report.html")
  return Page(out.read_text()), out


def test_headline_figures_and_sections(run, evaluation, tmp_path):
  page, out = write([run, evaluation], tmp_path)
  for words in (
    "FVU 0.187 16,384 held-out rows",
    "L0 31.7",
    "Loss recovered 0.9572 95 % interval 0.9511 to 0.9624, 64 contexts",
    "Training tokens 1.23 M 600 steps",
    "Wall time 3 min 34 s",
    "SmolLM2-135M-Instruct, blocks.9.hook_resid_post",
    "run: Sparse autoencoder, 4,608 latents, top 32, on blocks.9.hook_res",
    "held-out contexts; activations replaced at the positions that are rows",
  ):
    assert words in page.text, words
  assert out.stat().st_size < 6e6


def test_nothing_is_loaded_from_elsewhere(run, evaluation, tmp_path):
  page, _ = write([run, evaluation], tmp_path)
  for tag, attrs in page.tags:
    for name in ("src", "href", "action", "srcset"):
      assert (attrs.get(name) or "#").startswith(("#", "data:,")), (tag, attrs)
  # Plotly and the page's own script; the text's <script> is no third.
  assert page.scripts == 2


def test_text_from_contexts_stays_text(run, evaluation, tmp_path):
  _, out = write([run, evaluation], tmp_path)
  body = out.read_text().rsplit("<main>", 1)[1].split("</main>")[0]
  assert "<script>alert" not in body
  assert "&lt;script" in body
  assert "\u202e" not in body


def test_names_and_configs_are_escaped(tmp_path):
  run = report_data.make_run(tmp_path / 'a<b>&"c')
  cfg = json.loads((run / "sae" / "cfg.json").read_text())
  cfg["metadata"]["model_name"] = "</script><script>alert(2)</script>"
  (run / "sae" / "cfg.json").write_text(json.dumps(cfg))
  page, out = write([run], tmp_path)
  assert page.scripts == 2
  assert "alert(2)" in page.text
  assert 'a<b>&"c' in page.text
  assert "<script>alert(2)" not in out.read_text()


def test_every_figure_is_valid_and_every_curve_complete(
  run, evaluation, tmp_path
):
  page, _ = write([run, evaluation], tmp_path)
  figures = [
    plotly.graph_objects.Figure(
      json.loads(re.sub(r"var\(--\w+\)", "#123456", json.dumps(spec)))
    )
    for spec in page.specs
  ]
  titles = [
    a["aria-label"] for t, a in page.tags if "plot" in a.get("class", "")
  ]
  fvu = figures[[t.startswith("FVU") for t in titles].index(True)]
  assert fvu.layout.yaxis.type == "log"
  assert len(fvu.data[0].y) == 300 and len(fvu.data[1].y) == 6
  for name in (
    "Dead latents",
    "Learning rate",
    "Tokens per second",
    "train/loss",
  ):
    assert any(t.startswith(name) for t in titles), name
  assert not any("mfu" in t for t in titles)  # never measured


def test_the_histogram_counts_every_latent_once(run, evaluation, tmp_path):
  page, _ = write([run, evaluation], tmp_path)
  (bars,) = (s["data"][0] for s in page.specs if s["data"][0]["type"] == "bar")
  with np.load(evaluation / "density.npz") as arrays:
    fires_F = arrays["fires_F"]
  assert sum(bars["y"]) == len(fires_F)
  assert bars["y"][0] == np.sum(fires_F == 0)
  assert bars["customdata"][0] == "never"


def test_cards_shade_tokens_by_activation(run, evaluation, tmp_path):
  page, _ = write([run, evaluation], tmp_path)
  contexts = json.loads((evaluation / "contexts.json").read_text())
  examples = [e for x in contexts["latents"] for e in x["examples"]]
  active = sum(bool(v) for e in examples for v in e["activations"])
  assert page.count("article", "card") == len(contexts["latents"])
  assert page.count("mark", "t") == active + 1  # and one in the legend
  assert page.count("span", "out") == len(examples) + 1
  marks = [a for t, a in page.tags if t == "mark" and "data-v" in a]
  strongest = [a for a in marks if a["data-v"] == "9.50"]
  assert strongest and all(a["style"] == "--a:1.00" for a in strongest)
  weak = [a for a in marks if float(a["data-v"]) < 1]
  assert weak and all(float(a["style"][4:]) < 0.12 for a in weak)


def test_a_run_without_evaluation_says_what_makes_it(run, tmp_path):
  page, _ = write([run], tmp_path)
  assert "has not been evaluated" in page.text
  assert f"--config.run={run} --out={run}/eval" in page.text
  assert "last training step" in page.text
  assert "there are none" in page.text


def test_an_unfinished_run_without_weights(run, tmp_path):
  (run / "manifest.json").unlink()
  shutil.rmtree(run / "sae")
  page, _ = write([run], tmp_path)
  assert "is not finished" in page.text
  assert "Training tokens 1.23 M 599 steps" in page.text


def test_an_evaluation_alone(evaluation, run, tmp_path):
  shutil.rmtree(run)
  page, _ = write([evaluation], tmp_path)
  assert "FVU 0.187" in page.text
  assert "No metrics.jsonl" in page.text


def test_an_evaluation_without_the_language_model(run, evaluation, tmp_path):
  numbers = json.loads((evaluation / "metrics.json").read_text())
  numbers = {
    k: v
    for k, v in numbers.items()
    if not k.startswith(("lm_", "eval/ce", "eval/kl", "eval/loss"))
  }
  (evaluation / "metrics.json").write_text(json.dumps(numbers))
  (evaluation / "contexts.json").unlink()
  (evaluation / "density.npz").unlink()
  page, _ = write([run, evaluation], tmp_path)
  assert "Loss recovered – not measured" in page.text
  assert page.count("article", "card") == 0


def test_a_run_without_a_single_metric_yet(run, tmp_path):
  (run / "metrics.jsonl").write_text("")
  page, _ = write([run], tmp_path)
  assert "FVU –" in page.text


def test_runs_side_by_side_keep_their_evaluations(tmp_path):
  first = report_data.make_run(tmp_path / "a" / "run")
  second = report_data.make_run(tmp_path / "b" / "run", seed=1)
  report_data.make_evaluation(second / "eval", seed=1)
  outside = report_data.make_evaluation(tmp_path / "eval", run=str(first))
  numbers = json.loads((outside / "metrics.json").read_text())
  (outside / "metrics.json").write_text(json.dumps(numbers | {"eval/fvu": 0.5}))
  page, _ = write([outside, second, first], tmp_path)
  assert "b/run 0.187" in page.text and "a/run 0.500" in page.text
  anchors = [a["id"] for _, a in page.tags if "id" in a]
  assert len(anchors) == len(set(anchors))


def test_the_page_does_not_depend_on_when_it_is_made(run, evaluation, tmp_path):
  _, one = write([run, evaluation], tmp_path / "1")
  _, two = write([run, evaluation], tmp_path / "2")
  assert one.read_bytes() == two.read_bytes()


def test_directories_that_are_neither_are_refused(tmp_path):
  with pytest.raises(errors.InputError, match="neither a training run"):
    report.write_report([tmp_path], tmp_path / "r.html")
  with pytest.raises(errors.InputError, match="nothing to report"):
    report.write_report([], tmp_path / "r.html")


def test_a_page_that_cannot_be_written_is_said(run, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.InputError, match="cannot write the report"):
    report.write_report([run], tmp_path / "file" / "r.html")


@pytest.mark.parametrize(
  ("token", "pieces"),
  [
    (" word", [(" word", False)]),
    ("\n\n", [("↵↵", True)]),
    ("  ", [("··", True)]),
    ("a\tb", [("a", False), ("⇥", True), ("b", False)]),
    ("", [("∅", True)]),
    ("\x00\x1b\x7f", [("␀␛⟨7F⟩", True)]),
    ("\u202e", [("⟨202E⟩", True)]),
    ("👩\u200d🔬é", [("👩\u200d🔬é", False)]),
  ],
)
def test_what_cannot_be_seen_gets_a_sign(token, pieces):
  assert latents.visible(token) == pieces


def test_numbers_read_well():
  assert say.number(0.18731) == "0.187"
  assert say.number(31.7) == "31.7"
  assert say.number(12345.6) == "12,346"
  assert say.number(3.7e-5) == "3.70e-05"
  assert say.number(None) == "–"
  assert say.number(0.0) == "0"
  assert say.percent(0.00868) == "0.87 %"
  assert say.percent(0.455) == "45.5 %"
  assert say.count(153_600) == "153,600"
  assert say.count(1.2288e6) == "1.23 M"
  assert say.duration(8.21) == "8.2 s"
  assert say.duration(214.3) == "3 min 34 s"
  assert say.duration(7200) == "2 h"
  assert say.duration(93_784) == "1 d 2 h"


def test_long_curves_are_thinned_but_keep_their_means():
  y = [float(i % 7) for i in range(100_000)]
  y[0] = None
  xs, ys = plots.thin(range(100_000), y)
  assert len(xs) <= 1500
  assert np.mean(ys) == pytest.approx(3, abs=0.01)
