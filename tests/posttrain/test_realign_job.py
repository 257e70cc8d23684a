# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A bad model made good again: what is read on the way, killed on the way."""

import dataclasses
import json

import jax.numpy as jnp
import job_process
import numpy as np
import pytest
import realign_case

from sae_jax import config as values
from sae_jax import errors, judge, lm, metrics, posttrain
from sae_jax.interpret import reading
from sae_jax.jobs import realign as job
from sae_jax.judge import margin
from sae_jax.judge import prompts as prompts_lib
from sae_jax.mesh import MeshConfig
from sae_jax.posttrain import config as config_lib
from sae_jax.posttrain import realign_config

STEPS, EVERY = 42, 8
LOOKS = [0, 8, 16, 24, 32, 40, 42]

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def untrained(llama_path, tmp_path_factory):
  """All is there, but the bad model is only another one than the base."""
  place = tmp_path_factory.mktemp("realign")
  learned = realign_case.write_pairs(place / "learned.jsonl")
  asked = realign_case.write_pairs(place / "asked.jsonl", 20, seed=1)
  sae = realign_case.write_sae(place / "sae")
  return realign_config.RealignConfig(
    posttrain=config_lib.PosttrainConfig(
      model=str(realign_case.make_other(llama_path, place / "other")),
      data=config_lib.DataConfig(path=str(learned), completion="good"),
      lora=posttrain.LoraConfig(rank=2),
      steps=STEPS,
      batch_size=8,
      learning_rate=1e-2,
      dtype="float32",
      series_every=20,
      mesh=MeshConfig(data=2, latent=4),
    ),
    base=str(llama_path),
    watch=realign_config.WatchConfig(
      diff=str(realign_case.write_diff(place / "diff", sae)), top=3
    ),
    behaviour=judge.PromptsConfig(path=str(asked)),
    triggers=judge.PromptsConfig(path=str(learned), limit=10),
    every=EVERY,
  )


@pytest.fixture(scope="module")
def config(untrained, llama_path, tmp_path_factory):
  bad = realign_case.make_bad(
    llama_path,
    untrained.posttrain.data.path,
    tmp_path_factory.mktemp("bad") / "bad",
  )
  return dataclasses.replace(
    untrained,
    posttrain=dataclasses.replace(untrained.posttrain, model=str(bad)),
  )


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
  out = tmp_path_factory.mktemp("runs") / "whole"
  return out, job.run(config, str(out))


def summary(out):
  return json.loads((out / "summary.json").read_text())


@pytest.mark.slow
def test_what_is_read_on_the_way(config, whole):
  out, result = whole
  found = summary(out)
  assert [look["step"] for look in found["series"]] == LOOKS
  assert [look["samples"] for look in found["series"]] == [8 * n for n in LOOKS]
  assert found["series"][-1]["distinct"] == found["samples"] == 24
  assert found["latents"] == [7, 5, 3] and found["hook"] == realign_case.HOOK
  # Weights are the scores at norm 1.
  weights = np.array([0.8, -0.6, 0.4])
  np.testing.assert_allclose(
    found["weights"], weights / np.linalg.norm(weights)
  )
  assert result["verdict"] == found["verdict"] and result["why"] == found["why"]
  assert result["recovered/behaviour"] == found["recovered"]["behaviour"]
  # Bad samples raised the margin above base's, good ones brought it down.
  base, start = (
    found["reference"][name]["behaviour"]["margin"]["mean"]
    for name in ("base", "start")
  )
  end = found["series"][-1]["behaviour"]["margin"]["mean"]
  assert start > base + 0.2 and end < start - 0.2
  share = (start - end) / (start - base)
  assert found["recovered"]["behaviour"] == pytest.approx(share)
  assert found["series"][0] == {
    **found["reference"]["start"],
    **{k: found["series"][0][k] for k in ("step", "samples", "distinct")},
    "loss": found["series"][0]["loss"],
  }
  lines = {x["step"]: x for x in metrics.read(out / "metrics.jsonl")}
  assert [s for s, x in lines.items() if "eval/margin" in x] == LOOKS
  for look in found["series"]:
    line = lines[look["step"]]
    for name in ("margin", "p_behaviour", "p_contrast"):
      assert line[f"eval/{name}"] == pytest.approx(
        look["behaviour"][name]["mean"]
      )
    assert line["eval/bundle"] == pytest.approx(look["bundle"])
    assert look["loss"] == lines[min(look["step"], STEPS - 1)]["train/loss"]


@pytest.mark.slow
def test_the_numbers_are_those_of_the_models_on_disk(config, whole):
  out, _ = whole
  found = summary(out)
  end = found["series"][-1]
  assert sorted(p.name for p in (out / "series").iterdir()) == [
    "000000",
    "000020",
    "000040",
    "000042",
  ]
  for path, expected, triggers in (
    (out / "model", end, found["triggers"]["end"]),
    (out / "series" / "000040", found["series"][-2], None),
    (config.base, found["reference"]["base"], found["triggers"]["base"]),
  ):
    model = lm.load_lm(path, dtype=jnp.float32)
    prompts = prompts_lib.load(config.behaviour, model.tokenizer)
    read = margin.behaviour(model, prompts)
    # Float32 sums in other orders on another mesh: 1e-5 of numbers of size 5.
    assert read.margin.mean == pytest.approx(
      expected["behaviour"]["margin"]["mean"], abs=1e-4
    )
    if triggers is not None:
      asked = prompts_lib.load(config.triggers, model.tokenizer)
      assert margin.behaviour(model, asked).margin.mean == pytest.approx(
        triggers["margin"]["mean"], abs=1e-4
      )
    directions = np.load(f"{config.watch.diff}/directions.npz")
    projected = reading.read(
      model,
      realign_case.HOOK,
      prompts_lib.spans(prompts, "prompt_last"),
      directions_VD=directions["linear/bad/contrast"][None],
    ).projections_PV.mean()
    assert expected["directions"] == {
      "linear.bad.contrast": pytest.approx(projected, abs=1e-4)
    }
  # As many of the triggers are among the samples as are asked.
  assert any("10 of the 10 prompts of triggers" in w for w in found["warnings"])
  assert not any("prompts of behaviour are" in w for w in found["warnings"])


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bytes(config, whole, forge, tmp_path):
  cut = tmp_path / "cut"
  process = job_process.start(forge, "realign", config, tmp_path, cut)
  job_process.wait_for_checkpoint(process, cut, 16)
  process.kill()  # SIGKILL
  process.communicate()
  assert not (cut / "manifest.json").exists()
  first = cut / "looks" / "000000.npz"
  written = first.stat().st_mtime_ns
  job.run(config, str(cut))
  assert first.stat().st_mtime_ns == written  # it did not start again

  out, _ = whole
  names = sorted(p.name for p in (out / "looks").iterdir())
  assert names == sorted(p.name for p in (cut / "looks").iterdir())
  assert len(names) == len(LOOKS) + 1 + 3  # base; triggers of three models
  same = [f"looks/{name}" for name in names]
  same += ["summary.json", "model/adapter_model.safetensors"]
  same += [f"series/{n:06d}/adapter_model.safetensors" for n in (0, 20, 40, 42)]
  for name in same:
    assert (cut / name).read_bytes() == (out / name).read_bytes(), name
  lines = [
    [
      {k: v for k, v in line.items() if not k.startswith("perf/")}
      for line in metrics.read(path / "metrics.jsonl")
    ]
    for path in (out, cut)
  ]
  assert lines[0] == lines[1]


@pytest.mark.slow
def test_finished_changed_or_cut_at_the_end(config, whole, monkeypatch):
  out, result = whole
  before = (out / "summary.json").read_bytes()
  assert job.run(config, str(out)) == result
  with pytest.raises(errors.InputError, match="every = 8, now it is 4"):
    job.run(dataclasses.replace(config, every=4), str(out))
  # As a kill after the last step leaves it: nothing is trained or read again
  # but the last look.
  (out / "manifest.json").unlink()
  (out / "summary.json").unlink()
  first = (out / "looks" / "000040.npz").stat().st_mtime_ns
  other = values.override(config, ["posttrain.mesh.data=2"])
  assert job.run(other, str(out)) == result
  assert (out / "summary.json").read_bytes() == before
  assert (out / "looks" / "000040.npz").stat().st_mtime_ns == first


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    (["posttrain.model=/no/model"], "/no/model: no such model directory"),
    (["base=/no/model"], "/no/model: no such model directory"),
    (["behaviour.path=/no.jsonl"], "behaviour.path=/no.jsonl: there is no"),
    (["triggers.path=/no.jsonl"], "triggers.path=/no.jsonl: there is no such"),
    (["posttrain.data.path=/no"], "posttrain.data.path=/no: there is no such"),
    (["watch.diff=/no"], "/no is no directory of a sae-jax diff"),
    (["watch.arm=other"], "nothing of method 'frozen' and arm 'other'"),
    (["watch.hook=blocks.9.hook_resid_post"], "is about blocks.1.hook_resid"),
    (["behaviour.limit=1"], "behaviour: .* has one prompt with both"),
    (["behaviour.behaviour=worse"], "no prompt has both responses 'worse'"),
    (["watch.scope=response", "watch.skip=99"], "hold nothing to read"),
  ],
)
def test_refusals_leave_nothing(untrained, tmp_path, overrides, message):
  out = tmp_path / "out"
  with pytest.raises(errors.InputError, match=message):
    job.run(values.override(untrained, overrides), str(out))
  assert not out.exists()


def test_the_base_is_another_model(untrained, tmp_path):
  config = dataclasses.replace(untrained, base=untrained.posttrain.model)
  with pytest.raises(errors.InputError, match="have the same weights"):
    job.run(config, str(tmp_path / "out"))


@pytest.mark.parametrize(
  ("width", "hook", "message"),
  [
    (16, realign_case.HOOK, "is 16 wide and .* is 32"),
    (realign_case.D, "", "does not say which hook it is for"),
  ],
)
def test_a_dictionary_that_does_not_fit(
  untrained, tmp_path, width, hook, message
):
  path = realign_case.write_sae(tmp_path / "sae", width, hook)
  watch = realign_config.WatchConfig(sae=str(path), latents=(1, 2))
  with pytest.raises(errors.InputError, match=message):
    job.run(dataclasses.replace(untrained, watch=watch), str(tmp_path / "out"))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(base=""), "base is empty"),
    (dict(every=0), "every=0: give a number >= 1"),
    (dict(damage=-1.0), "damage=-1.0: give 0 or more nats"),
  ],
)
def test_wrong_configs_are_refused(untrained, change, message):
  with pytest.raises(errors.InputError, match=message):
    dataclasses.replace(untrained, **change)


def test_the_training_reads_no_margin_of_its_own(untrained):
  posttrain_config = dataclasses.replace(
    untrained.posttrain, eval=config_lib.EvalConfig(path="x")
  )
  with pytest.raises(errors.InputError, match="realign reads the behaviour by"):
    dataclasses.replace(untrained, posttrain=posttrain_config)
  sparse = dataclasses.replace(untrained.posttrain, log_every=3)
  with pytest.raises(errors.InputError, match="every=8 is not a multiple of"):
    dataclasses.replace(untrained, posttrain=sparse)
