# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a monitor: alarms, what they cost, and how data are screened."""

import monitor_data
import pytest
from diff_pages import edit, figures, write


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  at = tmp_path_factory.mktemp("monitor")
  return write([monitor_data.make_monitor(at / "monitor")], at)


def test_the_verdict_sets_alarms_against_false_ones(page):
  for words in (
    "Monitored: 12 runs with 108 checkpoints, of 2 base models at"
    " blocks.2.hook_resid_post; 300 samples of a fine-tuning set screened",
    "the latents sound an alarm in 2 of 2 runs that came to show the behaviour,"
    " 15 steps before it at the median (2 before, 0 with, 0 after).",
    "latents together 0.97 (0.91 to 1.00); control-contrast direction 0.97",
    "persona vector 0.61 (0.55 to 0.67)",
    "over 10 models; 100 % are caught, 0 % of the benign are accused.",
    "the latents put the doses of bad data in their order in 2 of 2 series.",
    "300 samples ranked; the bad ones stand above the rest with AUROC 0.88",
    "Asked for at most 5.0 % false alarms; 4 benign runs guarantee 20 %."
    " Counted on held-out benign runs: 0 of 4; with thresholds from other base"
    " models: 1 of 4.",
    "Tested on 6 suspect runs and 4 benign runs; 2 runs on which the latents"
    " were selected are shown, never tested.",
    "4 benign runs guarantee a false-alarm rate of 20% at best, not 5%",
    "the best latent reaches 0.83 in sample and 0.51 held out",
  ):
    assert words in page.text, words


def test_runs_are_drawn_with_threshold_alarm_and_behaviour(page):
  spec = figures(page)["Latents together"]  # the last of its name: doses
  runs = next(
    s for s in page.specs if any(t.get("name") == "alarm" for t in s["data"])
  )
  (line,) = runs["layout"]["shapes"]
  assert line["y0"] == line["y1"] == monitor_data.THRESHOLD
  traces = {trace["name"]: trace for trace in runs["data"]}
  assert traces["bad"]["line"]["dash"] == "dash"  # selected on
  assert traces["bad_other"]["line"]["dash"] == "solid"
  colours = {n: traces[n]["line"]["color"] for n in ("bad_other", "good")}
  assert colours["bad_other"] != colours["good"]
  alarms, shows = traces["alarm"], traces["behaviour shows"]
  assert min(alarms["y"]) > monitor_data.THRESHOLD
  assert len(shows["x"]) == 2 and max(alarms["x"]) > 0
  assert any("lead +" in words for words in alarms["text"])
  # Doses: what the latents were selected on is hollow.
  hollow = [t for t in spec["data"] if t["marker"].get("symbol")]
  assert [t["x"] for t in hollow] == [[1.0], [1.0]]


def test_aurocs_have_intervals_and_in_sample_stands_apart(page):
  spec = figures(page)["How well each signal tells bad checkpoints"]
  names = [trace["name"] for trace in spec["data"]]
  assert names == ["run left out", "base model left out", "in sample"]
  first = spec["data"][0]
  at = first["y"].index("persona vector")
  assert first["x"][at] == 0.61 and first["error_x"]["array"][at] > 0
  roc = figures(page)["Caught against falsely accused"]["data"]
  assert {t["name"] for t in roc} >= {"latents together", "persona vector"}
  for trace in roc:
    assert trace["x"][0] == 0 and trace["x"][-1] == trace["y"][-1] == 1


def test_the_behaviour_may_be_a_shift_of_the_margin(tmp_path):
  made = monitor_data.make_monitor(tmp_path / "monitor", screening=False)

  def shifted(summary):
    summary["behaviour"] = {"measure": "margin_shift", "threshold": 2.0}

  edit(made / "summary.json", shifted)
  page = write([made], tmp_path)
  spec = figures(page)["Behaviour"]
  assert spec["layout"]["shapes"][0]["y0"] == 2.0
  assert all(abs(trace["y"][0]) < 0.5 for trace in spec["data"])
  assert "No training data was screened" in page.text


def test_samples_are_shown_as_text_with_their_push(page):
  for words in (
    "300 samples of train.jsonl, by how much higher the signal “latents"
    " together” is in the base on the sample's completion than on the base's"
    " own answer.",
    "#1, push +0.0500 labelled bad Butter, then forget it. Doctors hate",
    "Pushed least (8)",
    "<img src=x onerror=alert(1)>",
  ):
    assert words in page.text, words
  assert not any(tag == "img" for tag, _ in page.tags)


def test_what_was_not_measured_is_a_dash_or_a_reason(tmp_path):
  made = monitor_data.make_monitor(tmp_path / "monitor", groups=1)

  def strip(summary):
    summary["screening"] = summary["detector"] = None
    for about in summary["signals"].values():
      about["threshold"] = about["threshold_rate"] = None
      about["auroc_run_out"] = about["auroc_early"] = None
      about["lead"]["median"] = None
      about["missed"] = {"n": 0, "of": 0}
      about["roc"] = []
      about["dose"] = {"ordered": 0, "of": 0}
    for group in summary["groups"]:
      group["dose"] = {}
      for run in group["runs"]:
        run["alarm"] = dict.fromkeys(run["alarm"])
        run["crossing"] = None
        run["checkpoints"] = run["checkpoints"][-1:]

  edit(made / "summary.json", strip)
  page = write([made], tmp_path)
  for words in (
    "no run that may be tested came to show the behaviour.",
    "No run has more than one checkpoint",
    "No runs with a stated dose of bad data",
    "No last checkpoints could be compared",
    "No training data was screened",
  ):
    assert words in page.text, words


def test_a_late_alarm_is_called_late(tmp_path):
  made = monitor_data.make_monitor(tmp_path / "monitor", screening=False)

  def late(summary):
    lead = summary["signals"]["latents"]["lead"]
    lead |= {"median": -5.0, "low": -10.0, "high": 0.0, "early": 0, "late": 2}

  edit(made / "summary.json", late)
  page = write([made], tmp_path)
  assert (
    "5 steps after it at the median (0 before, 0 with, 2 after)" in page.text
  )
