# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Diffs that are unfinished, bare, of equal models, or beside other things."""

import shutil

import diff_data
import pytest
import report_data
from diff_pages import anchors, edit, figures, write

from sae_jax import errors


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


def test_a_shift_of_behaviour_within_its_interval_is_none(diff, tmp_path):
  def still(summary):
    for part in summary["parts"]:
      if "margin" in part["summary"]:
        part["summary"]["margin"]["shift_low"] = -0.01

  edit(diff / "summary.json", still)
  page = write([diff], tmp_path)
  assert "ones has not measurably moved: margin −0.335" in page.text
  assert "It has come to prefer" not in page.text


def test_a_broken_summary_is_named(diff, tmp_path):
  (diff / "summary.json").write_text("{")
  with pytest.raises(errors.InputError, match=r"summary\.json"):
    write([diff], tmp_path)


def test_a_crosscoder_says_whose_latents_there_are(diff, tmp_path):
  counts = {"base_only": 3, "shared": 1000, "tuned_only": 7, "between": 40}
  row = {"latents": 2, "kl": 0.1, "recovered": 0.75, "low": 0.5, "high": 0.9}
  summary = {
    "by_norm": counts,
    "tuned_only": 2,
    "base_only": 1,
    "patching": {
      "available": True,
      "tokens": 60,
      "kl": 0.4,
      "sets": {"tuned_only": row, "all": row | {"recovered": None}},
    },
  }
  stores = summary | {"patching": {"available": False, "why": "no text"}}

  def add(whole):
    like = next(p for p in whole["parts"] if p["method"] == "frozen")
    like = like | {"method": "crosscoder", "dictionary": "crosscoder"}
    whole["parts"] += [
      like | {"arm": arm, "summary": found}
      for arm, found in (("bad", summary), ("realigned", stores))
    ]

  edit(diff / "summary.json", add)
  page = write([diff], tmp_path)
  for words in (
    "alone 7 latents are the arm's, 3 the base's and 1,000 shared",
    "with Latent Scaling 2 and 1 are left",
    "tuned only: 2 latents",
    "75.0 % (50.0 % to 90.0 %)",
    "the models predict the same",
    "Not patched in: no text.",
  ):
    assert words in page.text, words
