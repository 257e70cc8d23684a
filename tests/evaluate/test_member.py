# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which dictionary `config.run` means, where a run has trained several."""

import json

import numpy as np
import pytest

from sae_jax import config as config_lib
from sae_jax import errors, sae, store, stream
from sae_jax.jobs import evaluate as job
from sae_jax.train import config as train_config

HOOK = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  path = tmp_path_factory.mktemp("member") / "store"
  x_ND = np.random.default_rng(0).normal(size=(128, 8))
  store.write_arrays(path, {HOOK: x_ND}, read_rows=32, write_rows=64)
  return path


def make_run(path, source, sweep=(), **fields):
  config = train_config.TrainConfig(
    store=str(source),
    hook=HOOK,
    sae=sae.SaeConfig(latents=16, k=4),
    stream=stream.StreamConfig(batch_size=8),
    steps=2,
    sweep=sweep,
    **fields,
  )
  path.mkdir()
  recorded = {"job": "train", "config": config_lib.to_dict(config)}
  for name in ("config.json", "manifest.json"):
    (path / name).write_text(json.dumps(recorded))
  return path


def refused(run, tmp_path, match):
  with pytest.raises(errors.InputError, match=match):
    job.run(job.Config(run=str(run)), str(tmp_path / "eval"))
  assert not (tmp_path / "eval").exists()


def test_a_member_is_evaluated_at_its_own_hook(source, tmp_path):
  sweep = (
    train_config.MemberConfig(k=2),
    train_config.MemberConfig(hook="blocks.7.hook_resid_post"),
  )
  run = make_run(tmp_path / "run", source, sweep)
  refused(run / "sae" / "1", tmp_path, r"blocks\.7\.hook_resid_post")
  # Of the other one the hook is there; only the rows are not.
  refused(run / "sae" / "0" / "..", tmp_path, "2 dictionaries")
  refused(run / "sae" / "0", tmp_path, "held no rows out")


def test_what_is_no_member_is_said_with_what_is(source, tmp_path):
  sweep = (train_config.MemberConfig(k=2), train_config.MemberConfig(k=3))
  run = make_run(tmp_path / "run", source, sweep)
  remedy = rf"2 dictionaries; give --config\.run={run}/sae/0 to {run}/sae/1"
  for place in (run, run / "sae", run / "sae" / "2", run / "sae" / "00"):
    refused(place, tmp_path, remedy)
  refused(tmp_path, tmp_path, "no train run")
  (run / "manifest.json").unlink()
  refused(run / "sae" / "1", tmp_path, "unfinished")


def test_the_only_dictionary_of_a_run_has_no_number(source, tmp_path):
  run = make_run(tmp_path / "run", source)
  for place in (run, run / "sae"):
    refused(place, tmp_path, "held no rows out")
  refused(
    run / "sae" / "0", tmp_path, f"one dictionary; give --config.run={run}$"
  )
