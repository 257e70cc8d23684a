# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What `sae-jax` says and returns when it is used wrongly."""

import json

import numpy as np
import pytest

from sae_jax import store

HOOK = "blocks.0.hook_resid_post"


@pytest.fixture
def files(tmp_path):
  """Config files for every job, on a tiny store and text."""
  x_ND = np.random.default_rng(0).normal(size=(512, 8)).astype(np.float32)
  store.write_arrays(
    str(tmp_path / "store"), {HOOK: x_ND}, read_rows=64, write_rows=128
  )
  (tmp_path / "text.txt").write_text("To be, or not to be.\n")
  (tmp_path / "empty.txt").write_text("")
  (tmp_path / "train.py").write_text(
    "from sae_jax import sae, stream\n"
    "from sae_jax.train import config\n"
    "def get_config():\n"
    f"  return config.TrainConfig(store={str(tmp_path / 'store')!r},\n"
    f"    hook={HOOK!r}, sae=sae.SaeConfig(latents=16, k=2), steps=2,\n"
    "    stream=stream.StreamConfig(batch_size=32), log_every=1)\n"
  )
  (tmp_path / "harvest.py").write_text(
    "from sae_jax import harvest\n"
    "from sae_jax.lm import text\n"
    "def get_config():\n"
    "  return harvest.HarvestConfig(model='/nowhere/model',\n"
    f"    hooks=({HOOK!r},), rows=64,\n"
    f"    text=text.TextConfig(path={str(tmp_path / 'text.txt')!r}))\n"
  )
  return tmp_path


@pytest.fixture
def wrong(command, capsys):
  """Runs a line that ends with 2, one message that says `expected`."""

  def check(expected, *argv):
    assert command(*argv) == 2
    out, err = capsys.readouterr()
    assert not out
    assert expected in err
    assert "Traceback" not in err
    assert err.splitlines()[-1].strip()

  return check


def test_help_and_no_arguments(command, capsys):
  assert command("--help") == 0
  assert "usage: sae-jax JOB" in capsys.readouterr().out
  assert command() == 2


@pytest.mark.parametrize(
  ("argv", "expected"),
  [
    (["trian"], "no job 'trian'; jobs: harvest, train"),
    (["train"], "--config=FILE.py is missing"),
    (["train", "--config=nope.py"], "--out=DIR is missing"),
    (["train", "--config=nope.py", "--out=x"], "nope.py: no such file"),
    (["train", "--confg=nope.py"], "confg"),
    (["train", "extra", "--config=a", "--out=b"], "unexpected argument"),
    (["report"], "name at least one directory"),
    (["verify", "--config.a=1", "x"], "takes no --config"),
  ],
)
def test_wrong_usage(wrong, argv, expected):
  wrong(expected, *argv)


def test_a_missing_model_is_named(wrong, files):
  wrong(
    "/nowhere/model",
    "harvest",
    f"--config={files}/harvest.py",
    f"--out={files}/new",
  )
  assert not (files / "new").exists()


def test_a_config_typo_is_answered_with_the_field(wrong, files):
  wrong(
    "did you mean 'latents'",
    "train",
    f"--config={files}/train.py",
    "--config.sae.latent=32",
    f"--out={files}/run",
  )


def test_a_wrong_hook_is_answered_with_what_there_is(wrong, files):
  for hook in ("blocks.7.hook_resid_post", "model.layers.7"):
    wrong(
      f"it has {HOOK}",
      "train",
      f"--config={files}/train.py",
      f"--config.hook={hook}",
      f"--out={files}/{hook}",
    )


def test_a_missing_store_is_named(wrong, files):
  wrong(
    "is no activation store",
    "train",
    f"--config={files}/train.py",
    f"--config.store={files}/none",
    f"--out={files}/run",
  )


def test_verify_names_a_damaged_chunk(command, wrong, capsys, files):
  assert command("verify", files / "store") == 0
  assert json.loads(capsys.readouterr().out)["verified"]
  chunk = files / "store" / "activations" / HOOK / "c" / "1" / "0"
  content = bytearray(chunk.read_bytes())
  content[100] ^= 1
  chunk.write_bytes(content)
  wrong(f"activations/{HOOK}/c/1/0", "verify", files / "store")


def test_train_prints_its_result_as_one_json_line(command, capsys, files):
  argv = ("train", f"--config={files}/train.py", f"--out={files}/run")
  assert command(*argv) == 0
  result = json.loads(capsys.readouterr().out)
  assert result["steps"] == 2 and result["tokens"] == 64
  assert command(*argv) == 0
  out, err = capsys.readouterr()
  assert json.loads(out) == result and "already trained" in err
