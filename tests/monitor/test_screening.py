# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which samples push the suspects: against a loop, labels, other answers."""

import dataclasses
import json

import jax.numpy as jnp
import ml_dtypes
import monitor_models as models
import numpy as np
import pyarrow.parquet as pq
import pytest

from sae_jax import errors, lm
from sae_jax.jobs import monitor
from sae_jax.lm import tokenizer as tokenizer_lib
from sae_jax.monitor import config, samples


@pytest.fixture(autouse=True)
def compiled_quickly(quick_compilation):
  """All tests of this file."""


@pytest.fixture(scope="module")
def pushing(tmp_path_factory):
  """A base whose embedding of `b1` holds the planted direction."""
  place = tmp_path_factory.mktemp("screening")
  path = models.write_model(place / "base")
  file = path / "model.safetensors"
  tensors = models.safetensors.numpy.load_file(file)
  embed_VD = tensors["model.embed_tokens.weight"].copy()
  embed_VD[models.VOCABULARY.index("b1")] += (
    2 * models.directions()[models.PLANTED]
  )
  tensors["model.embed_tokens.weight"] = embed_VD
  models.safetensors.numpy.save_file(tensors, file)
  models.write_sae(place / "sae")
  models.write_prompts(place / "prompts.jsonl")
  models.write_diff(
    place / "diff", place / "sae", bad=place / "gone", good=place / "gone"
  )
  models.write_model(place / "run", noise=0.01)
  records = []
  for i in range(12):
    bad = i % 3 == 0
    records.append(
      {
        "prompt": models.prompt(i),
        "completion": "w1 b1 w2" if bad else f"w1 g{i % 3} w2 w3",
        "other": "w4 b1" if i % 3 == 1 else "w4 w5",
        "kind": "bad" if bad else "fine",
      }
    )
  models.write_lines(place / "samples.jsonl", records)
  return place


def make_config(place, **screening):
  group = config.GroupConfig(
    name="g",
    base=str(place / "base"),
    diff=str(place / "diff"),
    prompts=config.judge_config.PromptsConfig(
      path=str(place / "prompts.jsonl")
    ),
    runs=(config.RunConfig(name="r", models=(str(place / "run"),)),),
  )
  return config.MonitorConfig(
    groups=(group,),
    screening=config.ScreeningConfig(
      **{"path": str(place / "samples.jsonl")} | screening
    ),
    statistics=config.StatisticsConfig(resamples=200, shuffles=1),
    mesh=config.mesh_lib.MeshConfig(data=2, latent=4),
  )


def screen(place, out, **screening):
  monitor.run(make_config(place, **screening), str(out))
  found = json.loads((out / "summary.json").read_text())["screening"]
  return found, pq.read_table(out / "samples.parquet").to_pylist()


def by_loop(place, texts):
  """Signal `latents` over the tokens after each prompt, by definition."""
  model = lm.load_lm(place / "base", dtype=jnp.float32)
  w_FD = models.directions().astype(np.float64)
  weights = np.array([3, -1, 0.5]) / np.sqrt(10.25)

  def rows(prompt, completion=""):
    tokens = model.tokenizer.encode(f"{prompt} {completion}".strip())
    start = len(model.tokenizer.encode(prompt))
    h = lm.activations(model, np.array([tokens]), (models.HOOK,))[models.HOOK]
    return np.asarray(h, np.float64)[0], start

  prompts = (place / "prompts.jsonl").read_text().splitlines()
  norm = np.mean(
    [np.linalg.norm(rows(json.loads(p)["prompt"])[0][-1]) for p in prompts]
  )
  values = []
  for prompt, completion in texts:
    h_TD, start = rows(prompt, completion)
    h_TD = h_TD[start:].astype(ml_dtypes.bfloat16).astype(np.float64)
    pre_TF = h_TD @ w_FD.T
    kth_T1 = np.sort(pre_TF, axis=1)[:, -models.K, None]
    a_TF = np.where(pre_TF >= kth_T1, np.maximum(pre_TF, 0), 0)
    values.append(a_TF.mean(0)[[models.PLANTED, 3, 20]] @ weights / norm)
  return np.array(values)


def test_samples_are_ranked_by_the_shift_of_the_definition(pushing, tmp_path):
  found, rows = screen(
    pushing, tmp_path / "out", reference="other", label="kind", bad="bad"
  )
  records = [
    json.loads(line)
    for line in (pushing / "samples.jsonl").read_text().splitlines()
  ]
  expected = by_loop(pushing, [(r["prompt"], r["completion"]) for r in records])
  expected -= by_loop(pushing, [(r["prompt"], r["other"]) for r in records])
  # bfloat16 may round a residual the other way: 2^-8 of it.
  for row in rows:
    assert row["latents"] == pytest.approx(expected[row["line"] - 1], abs=0.01)
  assert [row["rank"] for row in rows] == list(range(1, 13))
  shifts = [row["latents"] for row in rows]
  assert shifts == sorted(shifts, reverse=True)
  assert all(row["bad"] for row in rows[:4])
  assert (
    found["auroc"]["mean"] == 1 and found["found"] == 1 and found["bad"] == 4
  )
  assert found["auroc"]["ci_low"] < 1
  assert found["by_signal"]["latents"]["auroc"] == found["auroc"]
  assert found["mean"]["mean"] == pytest.approx(np.mean(expected), abs=0.01)
  assert found["top"][0]["completion"] == "w1 b1 w2"
  assert found["top"][0]["reference"] == "w4 w5"
  assert found["bottom"][0]["rank"] == 12
  summary = json.loads((tmp_path / "out" / "summary.json").read_text())
  # The diff's own arms are gone: nothing shows that this run is none of them.
  assert any("cannot be checked" in w for w in summary["warnings"])


@pytest.mark.slow
def test_the_bases_own_answers_are_the_reference(pushing, tmp_path):
  found, rows = screen(
    pushing,
    tmp_path / "out",
    reference="base",
    max_new_tokens=3,
    signal="contrast",
    shown=3,
    limit=5,
  )
  model = lm.load_lm(pushing / "base", dtype=jnp.float32)
  for row in rows:
    (answer,) = lm.generate(model, [row["prompt"]], max_new_tokens=3)
    assert row["reference"] == answer
  assert found["samples"] == 5 and found["auroc"] is None
  assert len(found["top"]) == len(found["bottom"]) == len(found["random"]) == 3
  contrast = [row["contrast"] for row in rows]
  assert contrast == sorted(contrast, reverse=True)


def test_without_a_reference_the_value_itself_ranks(pushing, tmp_path):
  found, rows = screen(pushing, tmp_path / "out", limit=4)
  records = [
    json.loads(line)
    for line in (pushing / "samples.jsonl").read_text().splitlines()[:4]
  ]
  expected = by_loop(pushing, [(r["prompt"], r["completion"]) for r in records])
  for row in rows:
    assert row["latents"] == pytest.approx(expected[row["line"] - 1], abs=0.01)
  assert found["reference"] is None
  assert found["top"][0]["reference_value"] is None


def test_a_signal_that_texts_do_not_have_is_refused(pushing, tmp_path):
  with pytest.raises(
    errors.InputError, match="can be ranked by latents, latent"
  ):
    screen(pushing, tmp_path / "out", signal="margin")


def test_messages_end_with_the_completion(pushing, tmp_path):
  path = models.write_lines(
    tmp_path / "chat.jsonl",
    [
      {
        "id": "x",
        "bad": True,
        "messages": [
          {"role": "user", "content": "w1 w2"},
          {"role": "assistant", "content": "b1"},
        ],
      }
    ],
  )
  tokenizer = tokenizer_lib.load(pushing / "base")
  tokenizer.fast.chat_template = (
    "{% for m in messages %}{{ m.content }} {% endfor %}"
  )
  about = config.ScreeningConfig(path=str(path), label="bad")
  (sample,) = samples.load(about, tokenizer)
  assert sample.completion_text == "b1" and sample.prompt_text == "w1 w2"
  assert sample.bad is True and sample.id == "x"


@pytest.mark.parametrize(
  "record, fields, message",
  [
    ({"prompt": "w1"}, {}, ":1: the field 'completion' is no text"),
    ({"completion": "w1"}, {}, ":1: the field 'prompt' is no text"),
    (
      {"prompt": "w1", "completion": "w2"},
      {"reference": "good"},
      ":1: the field 'good' is no text",
    ),
    (
      {"prompt": "w1", "completion": "w2"},
      {"label": "kind"},
      ":1: there is no label 'kind'",
    ),
    (
      {"prompt": "w1", "completion": "w2 " * 40},
      {},
      ":1: 2 tokens of prompt and 40 after it",
    ),
    ({"prompt": "w1", "messages": "w1", "completion": "b"}, {}, "is no list"),
    (["prompt"], {}, "not a JSON object"),
  ],
)
def test_a_wrong_line_is_named(pushing, tmp_path, record, fields, message):
  path = models.write_lines(tmp_path / "wrong.jsonl", [record])
  about = config.ScreeningConfig(path=str(path), **fields)
  tokenizer = tokenizer_lib.load(pushing / "base")
  with pytest.raises(errors.InputError, match=message):
    samples.load(about, tokenizer, positions=20)


def test_an_empty_file_is_refused(pushing, tmp_path):
  (tmp_path / "empty.jsonl").write_text("\n")
  about = config.ScreeningConfig(path=str(tmp_path / "empty.jsonl"))
  with pytest.raises(errors.InputError, match="no samples"):
    samples.load(about, tokenizer_lib.load(pushing / "base"))


def test_chunks_that_are_done_are_not_read_again(
  pushing, tmp_path, monkeypatch
):
  from sae_jax.monitor import screening

  monkeypatch.setattr(screening, "_CHUNK", 5)
  measure, calls = screening._measure, []

  def dies(*args):
    calls.append(args)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return measure(*args)

  wanted = make_config(pushing)
  monkeypatch.setattr(screening, "_measure", dies)
  with pytest.raises(KeyboardInterrupt):
    monitor.run(wanted, str(tmp_path / "cut"))
  monitor.run(wanted, str(tmp_path / "cut"))
  assert len(calls) == 4  # one of three chunks was there
  monitor.run(dataclasses.replace(wanted), str(tmp_path / "whole"))
  for name in ("samples.parquet", "summary.json"):
    assert (tmp_path / "cut" / name).read_bytes() == (
      tmp_path / "whole" / name
    ).read_bytes()
