# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The monitor on small models whose fine-tuning is known."""

import dataclasses
import json
import os
import shutil
import signal
import sys
import time

import jax
import jax.numpy as jnp
import ml_dtypes
import monitor_configs
import monitor_models as models
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import special

from sae_jax import errors, lm
from sae_jax import mesh as mesh_lib
from sae_jax.jobs import monitor
from sae_jax.monitor import config, probe, series


@pytest.fixture(autouse=True)
def compiled_quickly(quick_compilation):
  """All tests of this file."""


@pytest.fixture(scope="module")
def summary(finished):
  return json.loads((finished / "summary.json").read_text())


def group_of(summary, name):
  return next(g for g in summary["groups"] if g["name"] == name)


def run_of(summary, group, name):
  runs = group_of(summary, group)["runs"]
  return next(r for r in runs if r["name"] == name)


def residuals(path, tokens):
  """At the last position, [P, D]."""
  model = lm.load_lm(path, dtype=jnp.float32)
  h_BTD = lm.activations(model, np.array(tokens), (models.HOOK,))[models.HOOK]
  return np.asarray(h_BTD)[:, -1].astype(np.float64)


def activations(h_PD):
  """Latents of a TopK SAE by definition, of what a store would hold."""
  w_FD = models.directions().astype(np.float64)
  pre_PF = h_PD.astype(ml_dtypes.bfloat16).astype(np.float64) @ w_FD.T
  kth_P1 = np.sort(pre_PF, axis=1)[:, -models.K, None]
  return np.where(pre_PF >= kth_P1, np.maximum(pre_PF, 0), 0)


def test_signals_and_behaviour_are_those_of_the_definition(place, summary):
  base = lm.load_lm(place / "one" / "base", dtype=jnp.float32)
  records = [
    json.loads(line)
    for line in (place / "prompts.jsonl").read_text().splitlines()
  ]
  tokens = [base.tokenizer.encode(r["prompt"]) for r in records]
  base_PD = residuals(place / "one" / "base", tokens)
  path = place / "one" / "series" / "bad 0" / "000020"
  tuned_PD = residuals(path, tokens)
  norm = np.linalg.norm(base_PD, axis=1).mean()
  found = run_of(summary, "one", "bad 0")["checkpoints"][2]
  assert found["step"] == 20 and found["model"] == str(path)
  moved_D = (tuned_PD - base_PD).mean(0) / norm
  moved_F = (activations(tuned_PD) - activations(base_PD)).mean(0) / norm
  weights = np.array([3, -1, 0.5]) / np.sqrt(9 + 1 + 0.25)
  directions_FD = models.directions().astype(np.float64)
  contrast_D = directions_FD[models.PLANTED] + 0.3 * directions_FD[5]
  positive = [
    [t[0], *base.tokenizer.encode("b0 b1")[1:], *t[2:]] for t in tokens
  ]
  persona_D = (residuals(place / "one" / "base", positive) - base_PD).mean(0)
  expected = {
    "latents": weights @ moved_F[[models.PLANTED, 3, 20]],
    "latent #1": moved_F[models.PLANTED],
    "latent #2": -moved_F[3],  # it fell in the diff
    "latent #3": moved_F[20],
    "contrast": contrast_D @ moved_D / np.linalg.norm(contrast_D),
    "persona_vector": persona_D @ moved_D / np.linalg.norm(persona_D),
    "drift": np.linalg.norm(moved_D),
  }
  for name, value in expected.items():
    # float32 residuals of norm 2 in another batch: 1e-6; one that rounds to
    # bfloat16 the other way moves a latent by 2^-8 of a coordinate of 1.
    assert found["signals"][name] == pytest.approx(value, abs=4e-3), name
  logits_PV = np.asarray(
    lm.logits(lm.load_lm(path, dtype=jnp.float32), np.array(tokens))
  )[:, -1].astype(np.float64)
  logp_PV = special.log_softmax(logits_PV, axis=1)
  bad, good = (
    logp_PV[
      np.arange(len(records)),
      [models.VOCABULARY.index(r[field]) for r in records],
    ]
    for field in ("bad", "good")
  )
  assert found["p_behaviour"]["mean"] == pytest.approx(
    np.exp(bad).mean(), rel=1e-4
  )
  assert found["margin"]["mean"] == pytest.approx((bad - good).mean(), rel=1e-4)
  assert found["p_behaviour"]["n"] == len(records)


def test_the_base_is_step_0_and_every_shift_is_against_it(summary):
  for group in summary["groups"]:
    for run in group["runs"]:
      first = run["checkpoints"][0]
      assert first["step"] == 0 and first["base"]
      assert set(first["signals"].values()) == {0.0}
      assert first["margin"] == group["reference"]["margin"]


def test_the_planted_latent_rises_before_the_behaviour(summary):
  for name in ("bad 0", "bad 1"):
    run = run_of(summary, "one", name)
    assert [c["step"] for c in run["checkpoints"]] == [0, 10, 20, 30]
    assert run["crossing"] == 30
    assert run["alarm"]["latents"] < 30
    assert run["lead"]["latents"] == 30 - run["alarm"]["latents"]
  found = summary["signals"]["latents"]
  assert found["auroc_run_out"]["mean"] == 1
  assert found["auroc_run_out"]["ci_low"] < 0.8  # three runs that cross
  assert found["auroc_early"]["mean"] > 0.9
  assert found["missed"] == {"n": 0, "of": 3}
  assert found["lead"]["n"] == 3 and found["lead"]["median"] > 0
  # 5 benign runs at a rate of 0.2: the largest, which is the 5th of ⌈6 · 0.8⌉.
  assert found["calibrated_on"] == 5
  assert found["threshold_rate"] == pytest.approx(1 / 6)


def test_selected_runs_are_watched_and_not_tested(summary):
  bad = run_of(summary, "one", "bad")
  assert bad["selection"] and bad["crossing"] == 30
  assert summary["detector"]["positive"] == 3  # bad 0, bad 1, bad 2
  assert summary["detector"]["negative"] == 5


def test_doses_are_in_order(summary):
  found = group_of(summary, "one")["dose"]["latents"]
  assert found["ordered"] and found["tau"] == 1
  assert [dose for dose, _ in found["values"]] == [0.05, 0.25, 0.5]
  assert [dose for dose, _ in found["selected"]] == [1.0]
  assert found["behaviour_dose"] is None  # none shows it yet …
  assert found["alarm_dose"] is not None  # … and one is seen already
  assert summary["signals"]["latents"]["dose"] == {"ordered": 1, "of": 1}
  assert "latents" not in group_of(summary, "two")["dose"]


def test_latents_of_different_groups_are_matched_by_rank(summary):
  assert group_of(summary, "one")["singles"][0] == "latent #1"
  assert group_of(summary, "one")["latents"] == [models.PLANTED, 3, 20]
  assert group_of(summary, "two")["latents"] == [models.PLANTED, 2]
  assert "persona_vector" not in group_of(summary, "two")["signals"]


def test_the_table_has_a_row_for_every_checkpoint(finished, summary):
  table = pq.read_table(finished / "checkpoints.parquet")
  count = sum(
    len(run["checkpoints"]) for g in summary["groups"] for run in g["runs"]
  )
  assert len(table) == count
  assert table["persona_vector"].null_count == 6  # group two has none
  row = table.to_pylist()[-1]
  last = run_of(summary, "two", "bad 2")["checkpoints"][-1]
  assert row["run"] == "bad 2" and row["latents"] == last["signals"]["latents"]


def test_limits_are_said(summary):
  text = "\n".join(summary["warnings"])
  assert "one group" not in text and "guarantee" not in text
  assert len(summary["rules"]) > 4
  assert json.dumps(summary, allow_nan=False)


def test_one_group_is_named_by_latent_and_warned_about(
  place, whole_config, tmp_path
):
  out = tmp_path / "out"
  monitor.run(monitor_configs.small(whole_config, latents=(3, 11)), str(out))
  summary = json.loads((out / "summary.json").read_text())
  (group,) = summary["groups"]
  assert group["singles"] == ["latent 3", "latent 11"]
  assert group["weights"] == pytest.approx([-1 / 10**0.5, 3 / 10**0.5])
  text = "\n".join(summary["warnings"])
  assert "one group" in text
  assert "1 benign runs guarantee a false-alarm rate of 50% at best" in text
  assert not (out / "work").exists()


def test_cut_off_it_goes_on_where_it_was_and_ends_the_same(
  place, whole_config, tmp_path, monkeypatch
):
  wanted = monitor_configs.small(whole_config)
  monitor.run(wanted, str(tmp_path / "whole"))
  read, calls = probe.measure, []

  def dies(*args):
    calls.append(args)
    if len(calls) == 4:
      raise KeyboardInterrupt
    return read(*args)

  monkeypatch.setattr(probe, "measure", dies)
  with pytest.raises(KeyboardInterrupt):
    monitor.run(wanted, str(tmp_path / "cut"))
  assert len(list((tmp_path / "cut" / "work").iterdir())) == 3
  assert not (tmp_path / "cut" / "manifest.json").exists()
  monitor.run(wanted, str(tmp_path / "cut"))
  assert len(calls) == 4 + 4  # seven models, three of them read before
  for name in ("summary.json", "checkpoints.parquet"):
    assert (tmp_path / "cut" / name).read_bytes() == (
      tmp_path / "whole" / name
    ).read_bytes()


def test_finished_it_is_not_done_again(finished, whole_config, copied, capsys):
  before = (copied / "summary.json").stat().st_mtime_ns
  result = monitor.run(whole_config, str(copied))
  assert result["groups"] == 2
  assert (copied / "summary.json").stat().st_mtime_ns == before
  assert "already watched" in capsys.readouterr().err


def test_a_run_that_the_latents_were_selected_on_is_refused(
  place, whole_config, tmp_path
):
  group = dataclasses.replace(whole_config.groups[0], selection=("good",))
  wrong = dataclasses.replace(whole_config, groups=(group,))
  with pytest.raises(
    errors.InputError, match="add the run's name to selection"
  ):
    monitor.run(wrong, str(tmp_path / "out"))
  assert not (tmp_path / "out").exists()


def test_the_base_is_its_reference_even_for_a_run_that_starts_misaligned(
  place, whole_config, tmp_path
):
  one = place / "one"
  last = str(one / "series" / "bad 0" / "000030")
  started = config.RunConfig(
    name="cured", models=(last, str(one / "base")), steps=(0, 10)
  )
  wanted = monitor_configs.small(whole_config)
  group = wanted.groups[0]
  group = dataclasses.replace(group, runs=(started, group.runs[0]))
  wanted = dataclasses.replace(wanted, groups=(group,))
  monitor.run(wanted, str(tmp_path / "out"))
  summary = json.loads((tmp_path / "out" / "summary.json").read_text())
  cured = run_of(summary, "one", "cured")
  assert cured["crossing"] == 0 and cured["alarm"]["latents"] == 0
  assert cured["checkpoints"][-1]["signals"]["latents"] == 0


def test_a_start_that_computes_what_the_base_does_is_the_base(
  place, whole_config, tmp_path
):
  path = tmp_path / "series" / "000000"
  shutil.copytree(place / "one" / "base", path)
  file = path / "model.safetensors"
  tensors = models.safetensors.numpy.load_file(file)
  models.safetensors.numpy.save_file(tensors, file, {"saved": "again"})
  models.write_model(tmp_path / "series" / "000005", 1.0)
  wanted = monitor_configs.small(whole_config)
  again = config.RunConfig(name="again", series=str(tmp_path / "series"))
  group = wanted.groups[0]
  group = dataclasses.replace(group, runs=(again, group.runs[0]))
  monitor.run(
    dataclasses.replace(wanted, groups=(group,)), str(tmp_path / "out")
  )
  summary = json.loads((tmp_path / "out" / "summary.json").read_text())
  found = run_of(summary, "one", "again")["checkpoints"]
  assert [c["base"] for c in found] == [True, False]
  # An early checkpoint that is the base would say nothing about the run.
  assert summary["signals"]["latents"]["auroc_early"] is None


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(base="/nowhere"), "/nowhere"),
    (dict(diff="/nowhere"), "no directory of a sae-jax diff"),
    (dict(hook="blocks.0.hook_resid_pre"), "compared blocks.0.hook_resid_post"),
    (dict(latents=(99,)), "give different ones of 0 to 31"),
    (dict(latents=(1, 2)), "nothing is suspect"),
    (dict(arm="worse"), "no arm 'worse'"),
    (dict(scope="prompt", skip_positions=9), "hold nothing to read"),
  ],
)
def test_what_does_not_fit_is_named(
  place, whole_config, tmp_path, change, message
):
  with pytest.raises(errors.InputError, match=message):
    monitor.run(
      monitor_configs.small(whole_config, **change), str(tmp_path / "out")
    )
  assert not (tmp_path / "out" / "summary.json").exists()


def test_another_tokenizer_is_refused(place, whole_config, tmp_path):
  path = models.write_model(tmp_path / "model")
  words = list(models.VOCABULARY)
  words[-1], words[1] = words[1], words[-1]
  models.write_tokenizer(path, words)
  wanted = monitor_configs.small(whole_config)
  run = config.RunConfig(name="other", models=(str(path),))
  group = dataclasses.replace(wanted.groups[0], runs=(run,))
  # The same weights as the base's would be read as the base.
  models.write_model(tmp_path / "moved", noise=0.01)
  (tmp_path / "moved" / "model.safetensors").rename(path / "model.safetensors")
  wanted = dataclasses.replace(wanted, groups=(group,))
  with pytest.raises(errors.InputError, match="other tokens of the prompts"):
    monitor.run(wanted, str(tmp_path / "out"))


def test_series_are_read_by_step(place, tmp_path):
  directory = tmp_path / "series"
  for name in ("000100", "000020"):
    models.write_model(directory / name, noise=0.01, seed=int(name))
  (directory / ".000200.tmp").mkdir()
  (directory / "notes").mkdir()
  base = series.Checkpoint(0, "base", "hash")
  run = config.RunConfig(name="r", series=str(directory))
  found = series.checkpoints(run, base)
  assert [c.step for c in found] == [0, 20, 100] and found[0] == base
  models.write_model(directory / "20", noise=0.01)
  with pytest.raises(errors.InputError, match="are the same step"):
    series.checkpoints(run, base)
  nothing = config.RunConfig(name="r", series=str(directory / "notes"))
  with pytest.raises(errors.InputError, match="no subdirectory"):
    series.checkpoints(nothing, base)


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: config.RunConfig(name="r"), "either series"),
    (lambda: config.RunConfig(name="r", models=("a",), series="b"), "either"),
    (
      lambda: config.RunConfig(name="r", models=("a",), steps=(1, 2)),
      "2 steps",
    ),
    (
      lambda: config.RunConfig(name="r", models=("a", "b"), steps=(2, 1)),
      "order",
    ),
    (lambda: config.RunConfig(name="r", models=("a",), dose=5), "a share"),
    (lambda: config.BehaviourConfig(threshold=1.0), "a probability"),
    (lambda: config.BehaviourConfig(threshold=0.0), "number > 0"),
    (lambda: config.MonitorConfig(groups=()), "groups is empty"),
    (lambda: config.ScreeningConfig(path=""), "path is empty"),
    (lambda: config.StatisticsConfig(resamples=5), "100 or more"),
  ],
)
def test_wrong_configs_say_what_to_give(make, message):
  with pytest.raises(errors.InputError, match=message):
    make()


CONFIG = """
import sys
sys.path.insert(0, {tests!r})
import monitor_configs, pathlib

def get_config():
  return monitor_configs.small(
    monitor_configs.whole(pathlib.Path({place!r}))
  )
"""


@pytest.mark.slow
def test_killed_and_started_again_it_writes_the_same_bytes(
  place, finished, forge, tmp_path, command, capsys, monkeypatch
):
  monkeypatch.setattr(sys, "path", sys.path[:])  # the config file extends it
  file = tmp_path / "monitor.py"
  file.write_text(
    CONFIG.format(
      tests=str(models.__file__).rpartition("/")[0], place=str(place)
    )
  )
  out, whole = tmp_path / "out", tmp_path / "whole"

  def line(out):
    mesh = ("--config.mesh.data=1", "--config.mesh.latent=1")
    return ["monitor", f"--config={file}", f"--out={out}", *mesh]

  # Compiled as here: a program of other optimizations may round otherwise.
  told = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  process = forge.start(*line(out), env=os.environ | told)
  while process.poll() is None:
    if (out / "work").is_dir() and len(list((out / "work").iterdir())) > 2:
      process.send_signal(signal.SIGKILL)
      break
    time.sleep(0.002)
  assert process.wait() == -signal.SIGKILL
  assert not (out / "summary.json").exists()
  # Another process goes on with what the killed one left, on one device too.
  monkeypatch.setattr(mesh_lib, "_all_devices", lambda: jax.devices()[:1])
  assert command(*line(out)) == 0
  capsys.readouterr()
  assert command(*line(whole)) == 0
  said = capsys.readouterr().out.splitlines()[-1]
  assert json.loads(said)["monitor"] == str(whole)
  for name in ("summary.json", "checkpoints.parquet"):
    assert (out / name).read_bytes() == (whole / name).read_bytes()
  # One device and eight: the same decisions, the same numbers to rounding.
  one, eight = (
    json.loads((path / "summary.json").read_text())
    for path in (whole, finished)
  )
  for name in ("calm 0", "bad 0"):
    ours, theirs = (run_of(summary, "one", name) for summary in (one, eight))
    assert ours["crossing"] == theirs["crossing"]
    last = [r["checkpoints"][-1]["signals"]["contrast"] for r in (ours, theirs)]
    # Means of float32 residuals of norm 2 over six prompts.
    assert last[0] == pytest.approx(last[1], abs=1e-5)
