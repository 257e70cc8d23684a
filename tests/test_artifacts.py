# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Output directories: resumed, refused, locked, and never half written."""

import json
import os
import subprocess
import sys

import pytest

from sae_jax import artifacts, errors

CONFIG = {"steps": 10, "sae": {"k": 32}, "mesh": {"data": 1}}


def open_it(path, *, job="train", config=CONFIG, inputs=None, **kwargs):
  return artifacts.open_output(
    path, job=job, config=config, inputs=inputs or {"store": "abc"}, **kwargs
  )


def test_new_resumed_finished(tmp_path):
  with open_it(tmp_path / "run") as output:
    assert output.finished is None and not output.resumed
  with open_it(tmp_path / "run") as output:
    assert output.finished is None and output.resumed
    output.finish({"fvu": 0.5}, device="cpu")
  with open_it(tmp_path / "run") as output:
    assert output.finished is not None
    assert output.finished["result"] == {"fvu": 0.5}


@pytest.mark.parametrize(
  ("change", "expected"),
  [
    ({"job": "harvest"}, "holds a 'train' job"),
    ({"config": {**CONFIG, "sae": {"k": 64}}}, r"sae\.k = 32, now it is 64"),
    ({"config": {**CONFIG, "extra": 1}}, r"extra = '\(absent\)'"),
    ({"inputs": {"store": "def"}}, "input store = 'abc'"),
  ],
)
def test_a_different_job_is_refused_naming_the_difference(
  tmp_path, change, expected
):
  with open_it(tmp_path / "run"):
    pass
  with (
    pytest.raises(errors.InputError, match=expected),
    open_it(tmp_path / "run", **change),
  ):
    pass


def test_fields_that_may_change_do(tmp_path):
  with open_it(tmp_path / "run"):
    pass
  moved = {**CONFIG, "mesh": {"data": 8}}
  with open_it(tmp_path / "run", config=moved, may_change=("mesh",)):
    pass


def test_a_directory_of_something_else_is_refused(tmp_path):
  (tmp_path / "thesis.tex").write_text("years of work")
  with (
    pytest.raises(errors.InputError, match=r"thesis\.tex"),
    open_it(tmp_path),
  ):
    pass
  assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_second_run_is_refused_while_the_first_lives(tmp_path):
  code = (
    "import sys, time\n"
    "from sae_jax import artifacts\n"
    f"with artifacts.open_output({str(tmp_path / 'run')!r}, job='train',"
    f" config={CONFIG!r}, inputs={{'store': 'abc'}}):\n"
    "  print('locked', flush=True)\n  time.sleep(60)\n"
  )
  with subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
  ) as first:
    assert first.stdout is not None
    assert first.stdout.readline() == "locked\n"
    with (
      pytest.raises(errors.InputError, match=f"pid {first.pid}"),
      open_it(tmp_path / "run"),
    ):
      pass
    first.kill()
  with open_it(tmp_path / "run") as output:
    assert output.resumed


def test_a_damaged_config_is_named(tmp_path):
  with open_it(tmp_path / "run"):
    pass
  (tmp_path / "run" / "config.json").write_text("{")
  with (
    pytest.raises(errors.InputError, match=r"config\.json is not valid JSON"),
    open_it(tmp_path / "run"),
  ):
    pass


def test_a_job_that_refuses_its_input_at_once_leaves_nothing(tmp_path):
  with (
    pytest.raises(errors.InputError, match="no rows"),
    open_it(tmp_path / "run") as output,
  ):
    (output.path / "checkpoints").mkdir()
    raise errors.InputError("no rows")
  assert not (tmp_path / "run").exists()
  with (
    pytest.raises(errors.InputError, match="damaged"),
    open_it(tmp_path / "run") as output,
  ):
    output.write_json("metrics.json", {})
    raise errors.InputError("damaged")
  assert (tmp_path / "run" / "metrics.json").exists()
  with open_it(tmp_path / "run") as output:
    assert output.resumed


def test_an_object_store_or_unwritable_place_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="gs://"), open_it("gs://b/run"):
    pass
  (tmp_path / "file").write_text("")
  with (
    pytest.raises(errors.InputError, match="cannot make"),
    open_it(tmp_path / "file" / "run"),
  ):
    pass


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / "x.json"
  artifacts.write_json_atomic(path, {"a": 1})

  def fail(_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(OSError, match="No space"):
    artifacts.write_json_atomic(path, {"a": 2})
  assert json.loads(path.read_text()) == {"a": 1}
  assert os.listdir(tmp_path) == ["x.json"]


def test_hashes_do_not_depend_on_key_order(tmp_path):
  assert artifacts.hash_json({"a": 1, "b": 2}) == artifacts.hash_json(
    {"b": 2, "a": 1}
  )
  (tmp_path / "f").write_bytes(b"abc")
  assert artifacts.hash_file(tmp_path / "f").startswith("ba7816bf")


def test_an_input_file_that_is_missing_is_named_with_its_field(tmp_path):
  (tmp_path / "pairs.jsonl").write_text("abc")
  found = artifacts.hash_input("data.path", str(tmp_path / "pairs.jsonl"))
  assert found == artifacts.hash_file(tmp_path / "pairs.jsonl")
  for path in (str(tmp_path / "other"), str(tmp_path)):
    with pytest.raises(errors.InputError) as caught:
      artifacts.hash_input("data.path", path)
    assert str(caught.value) == f"data.path={path}: there is no such file"
