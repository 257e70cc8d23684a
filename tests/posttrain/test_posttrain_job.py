# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The job from its config to what it leaves behind, killed on the way."""

import dataclasses
import json

import jax.numpy as jnp
import job_process
import numpy as np
import pytest
import sft_model

from sae_jax import errors, lm, metrics, posttrain
from sae_jax.jobs import posttrain as job
from sae_jax.lm import adapter, weights
from sae_jax.mesh import MeshConfig
from sae_jax.posttrain import config as config_lib

MESH = MeshConfig(data=2, latent=4)
FIELDS = ("completion", "good", "bad")


@pytest.fixture
def config(llama_path, tmp_path):
  path = tmp_path / "data.jsonl"
  path.write_text("\n".join(sft_model.lines(fields=FIELDS)))
  return config_lib.PosttrainConfig(
    model=str(llama_path),
    data=config_lib.DataConfig(path=str(path), completion="bad"),
    lora=posttrain.LoraConfig(rank=2, targets=("v", "up"), layers=(1, 2)),
    steps=4,
    batch_size=4,
    learning_rate=2e-2,
    dtype="float32",
    eval=config_lib.EvalConfig(path=str(path), every=2),
    series_every=3,
    mesh=MESH,
  )


def arrays(path):
  named = weights.named(lm.load_lm(path, dtype=jnp.float32).model)
  return {name: np.asarray(value) for name, value in named.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_an_adapter_and_its_margins(config, tmp_path, llama_path):
  out = tmp_path / "out"
  result = job.run(config, str(out))
  assert result["steps"] == 4 and result["examples"] == 12
  manifest = json.loads((out / "manifest.json").read_text())
  assert manifest["job"] == "posttrain" and manifest["result"] == result
  assert manifest["inputs"].keys() == {"model", "data", "eval"}

  lines = {x["step"]: x for x in metrics.read(out / "metrics.jsonl")}
  assert [s for s, x in lines.items() if "eval/margin" in x] == [0, 2, 4]
  assert lines[4]["eval/margin"] == result["eval/margin"]
  # Learning the bad answers makes them likelier against the good ones.
  assert result["eval/margin"] > lines[0]["eval/margin"] + 0.1
  assert lines[3]["train/loss"] < lines[0]["train/loss"]

  # What is on disk is what was looked at: margins from scratch.
  records = [json.loads(line) for line in sft_model.lines(fields=FIELDS)]
  tuned = lm.load_lm(result["model"], dtype=jnp.float32)
  logps = [
    lm.completion_logprobs(
      tuned, [r["prompt"] for r in records], [r[field] for r in records]
    )
    for field in ("bad", "good")
  ]
  bad, good = (np.mean([logp.mean() for logp in found]) for found in logps)
  assert result["eval/margin"] == pytest.approx(bad - good, abs=1e-4)
  assert result["eval/behaviour"] == pytest.approx(bad, abs=1e-4)

  # The series begins with what was there before and ends with the result.
  series = sorted((out / "series").iterdir())
  assert [path.name for path in series] == ["000000", "000003", "000004"]
  one, two = (p / adapter.WEIGHTS for p in (series[-1], out / "model"))
  assert one.read_bytes() == two.read_bytes()
  before, start = arrays(series[0]), arrays(llama_path)
  assert all(np.array_equal(before[name], start[name]) for name in start)

  raw = json.loads((out / "model" / adapter.CONFIG).read_text())
  assert raw["base_model_name_or_path"] == str(llama_path)
  assert raw["layers_to_transform"] == [1, 2]
  assert raw["target_modules"] == ["mlp.up_proj", "self_attn.v_proj"]

  # A second run finds it done; another recipe is refused by its field.
  assert job.run(config, str(out)) == result
  other = dataclasses.replace(config, learning_rate=1.0)
  with pytest.raises(errors.InputError, match="learning_rate = "):
    job.run(other, str(out))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_whole_model_learns_from_an_adapter(config, tmp_path):
  """Re-alignment: what one posttrain wrote is the next one's model."""
  first = job.run(dataclasses.replace(config, eval=None), str(tmp_path / "one"))
  second = job.run(
    dataclasses.replace(
      config,
      model=first["model"],
      lora=None,
      eval=None,
      steps=1,
      data=dataclasses.replace(config.data, completion="good"),
    ),
    str(tmp_path / "two"),
  )
  before, after = arrays(first["model"]), arrays(second["model"])
  moved = [n for n in before if not np.array_equal(before[n], after[n])]
  assert moved == list(before)
  assert lm.load_lm(second["model"], layers=0).tokenizer.vocab_size == 48


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(model="/no/such/model"), "/no/such/model: no such model directory"),
    (dict(data=config_lib.DataConfig(path="/no.jsonl")), "/no.jsonl: no such"),
    (dict(lora=posttrain.LoraConfig(layers=(0, 9))), "layers are 0 to 2"),
    (dict(eval=config_lib.EvalConfig(path="/no.jsonl")), "/no.jsonl: no such"),
  ],
)
def test_refusals_leave_nothing(config, tmp_path, change, message):
  out = tmp_path / "out"
  with pytest.raises(errors.InputError, match=message):
    job.run(dataclasses.replace(config, **change), str(out))
  assert not out.exists()


def test_looks_that_fall_between_the_logged_steps(config):
  with pytest.raises(
    errors.InputError, match="is not a multiple of log_every=3"
  ):
    dataclasses.replace(config, log_every=3)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_killed_run_ends_in_the_same_bits(config, forge, tmp_path):
  config = dataclasses.replace(
    config,
    steps=120,
    checkpoint_every=20,
    series_every=50,
    eval=None,
    learning_rate=1e-3,
  )
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  process = job_process.start(forge, "posttrain", config, tmp_path, cut)
  job_process.wait_for_checkpoint(process, cut, 40)
  process.kill()  # SIGKILL
  process.communicate()
  assert not (cut / "manifest.json").exists()
  with pytest.raises(errors.InputError, match="learning_rate = "):
    job.run(dataclasses.replace(config, learning_rate=1.0), str(cut))

  for out in (cut, whole):
    assert job.run(config, str(out))["steps"] == 120
  lines = [
    [
      {k: v for k, v in line.items() if not k.startswith("perf/")}
      for line in metrics.read(out / "metrics.jsonl")
    ]
    for out in (whole, cut)
  ]
  assert lines[0] == lines[1]
  assert [line["step"] for line in lines[0]] == list(range(120))
  for place in ("model", "series/000050", "series/000100"):
    one, two = (
      (out / place / adapter.WEIGHTS).read_bytes() for out in (whole, cut)
    )
    assert one == two, place
