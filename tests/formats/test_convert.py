# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax convert`, as users call it."""

import json

import pytest

from sae_jax import errors, formats
from sae_jax.formats import api, hub, model_card, saelens


@pytest.fixture
def convert(command, capsys):
  """Runs it; returns the exit code, the result and what was said."""

  def call(*argv):
    code = command("convert", *argv)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, json.loads(out) if out else None, err

  return call


@pytest.fixture
def source(tmp_path, kinds):
  metadata = {"hook_name": "blocks.3.hook_resid_post", "model_name": "gpt2"}
  dictionary = kinds.make(metadata=metadata)
  formats.save_sae(dictionary, tmp_path / "run" / "sae")
  return tmp_path / "run"


@pytest.mark.parametrize(
  "format", ["saelens", "sparsify", "dictionary_learning"]
)
def test_a_dictionary_goes_there_and_back(
  tmp_path, source, convert, kinds, format
):
  there, back = tmp_path / "a" / "there", tmp_path / "back"
  code, result, err = convert(source, there, f"--format={format}")
  assert (code, err) == (0, "")
  assert result["sae"] == str(there)
  assert result["source"]["format"] == "saelens"
  assert result["changed"] == []
  assert result["difference"] == {"activations": 0, "outputs": 0}
  assert convert(there, back, "--format=saelens")[0] == 0
  before, after = formats.load_sae(source), formats.load_sae(back)
  kinds.assert_equal(after, before)
  assert after.metadata["hook_name"] == "blocks.3.hook_resid_post"
  origin = after.metadata["sae_jax_converted_from"]
  assert origin == {"format": format, "sha256": formats.hash_sae(there)}
  # Nothing else is left behind.
  assert {p.name for p in there.parent.iterdir()} == {"there"}


def test_what_is_there_is_not_written_over(tmp_path, source, convert, kinds):
  there = tmp_path / "there"
  there.mkdir()
  code, first, _ = convert(source, there, "--format=sparsify")
  assert code == 0
  (there / "README.md").write_text("mine")
  code, again, err = convert(source, there, "--format=sparsify")
  assert (code, again) == (0, first)
  assert "is already converted" in err
  code, _, err = convert(source, there, "--format=saelens")
  assert code == 2
  assert "exists" in err and "choose another DST" in err
  formats.save_sae(kinds.make(seed=1), source / "sae")
  code, _, err = convert(source, there, "--format=sparsify")
  assert code == 2
  assert "is not what this conversion writes" in err
  assert (there / "README.md").read_text() == "mine"
  assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "there"]


def test_what_changes_is_said(tmp_path, convert, kinds):
  def said(made, format):
    source = tmp_path / "source"
    formats.save_sae(kinds.make(**made), source)
    there = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    code, result, err = convert(source, there, f"--format={format}")
    assert code == 0
    assert err.splitlines() == result["changed"]
    assert result["difference"]["outputs"] < 1e-5
    return err

  topk = said({"centred": False}, "dictionary_learning")
  assert "centred: False became True, and what b_dec" in topk
  assert "only sae_jax opens" in said({"skip": True}, "saelens")
  relu = said({"activation": "relu", "metadata": {"hook_name": "h"}}, "openai")
  assert "metadata lost or changed: hook_name" in relu
  crosscoder = said({"activation": "jumprelu"}, "crosscoder_learning")
  assert "decoder rows of length [1.0, 1.0, 1.0] (least, mean, gr" in crosscoder


@pytest.mark.parametrize(
  ("words", "named"),
  [
    (["RUN", "DST"], "--format"),
    (["RUN", "DST", "--format=gguf"], "invalid choice: 'gguf'"),
    (["RUN", "--format=saelens"], "DST"),
    (["RUN", "DST", "--format=saelens", "--x"], "unrecognized arguments: --x"),
    (["/nowhere", "DST", "--format=saelens"], "/nowhere: no such directory"),
    (["RUN", "gs://b/x", "--format=saelens"], "give a path"),
    (["RUN", "/", "--format=saelens"], "name a new directory"),
    (["RUN", "DST", "--format=crosscoder_learning"], "has no topk"),
  ],
)
def test_mistakes_end_with_2(tmp_path, source, convert, words, named):
  places = {"RUN": str(source), "DST": str(tmp_path / "there")}
  code, result, err = convert(*(places.get(w, w) for w in words))
  assert (code, result) == (2, None)
  assert named in err
  assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_damaged_weights_are_refused(tmp_path, source, convert):
  file = source / "sae" / saelens.WEIGHTS
  file.write_bytes(file.read_bytes()[:-4])
  code, _, err = convert(source, tmp_path / "x", "--format=sparsify")
  assert code == 2
  assert str(file) in err


def test_the_result_goes_to_the_hub(tmp_path, source, convert, monkeypatch):
  pushed = []

  def push(path, repo, *, origin, evaluation):
    pushed.append((path, repo, origin, evaluation))
    return "https://hub/me/x"

  monkeypatch.setattr(hub, "push", push)
  there = tmp_path / "there"
  words = ("--format=sparsify", "--push-to-hub=me/x", "--evaluation=eval")
  _, result, _ = convert(source, there, *words)
  assert result["hub"] == "https://hub/me/x"
  assert pushed == [(there, "me/x", source / "sae", "eval")]


def test_an_evaluation_of_the_source_is_one_of_the_result(
  tmp_path, source, convert
):
  assert convert(source, tmp_path / "a", "--format=sparsify")[0] == 0
  evaluation = tmp_path / "eval"
  evaluation.mkdir()
  config = {"job": "evaluate", "inputs": {"sae": formats.hash_sae(source)}}
  (evaluation / "config.json").write_text(json.dumps(config))
  found = {"hook": "h", "rows": 10, "eval/fvu": 0.25}
  (evaluation / "metrics.json").write_text(json.dumps(found))
  measured = model_card.measured(tmp_path / "a", evaluation)
  assert measured.figures == {"fvu": 0.25}
  config["inputs"]["sae"] = "other"
  (evaluation / "config.json").write_text(json.dumps(config))
  with pytest.raises(errors.InputError, match="is not an evaluation"):
    model_card.measured(tmp_path / "a", evaluation)


def test_help_names_the_formats(command, capsys):
  assert command("convert", "--help") == 0
  out = capsys.readouterr().out
  assert all(name in out for name in api.WRITTEN)
