# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax diff` from models and from stores to files, and again after kills.

Ground truth: a direction that is added to one word's embedding is the latent
that changed; a model compared with itself has none.
"""

import json
import pathlib
import signal
import subprocess
import sys
import time

import diff_models
import numpy as np
import pytest

from sae_jax.diff import table

CONFIG = """
from sae_jax import judge
from sae_jax.diff import config
from sae_jax.diff.cards_config import CardsConfig

def get_config():
  return config.DiffConfig(
    base="{place}/base",
    arms=(
      config.Arm(name="bad", model="{place}/bad"),
      config.Arm(name="good", model="{place}/good", role="control"),
      config.Arm(name="same", model="{place}/base", role="null"),
    ),
    sae="{place}/sae",
    prompts=judge.PromptsConfig(path="{place}/prompts.jsonl"),
    scope="prompt_last",
    methods=("frozen", "attribution", "linear"),
    statistics=config.StatisticsConfig(resamples=200, shuffles=10),
    cards=CardsConfig(latents=4),
  )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """base; bad: the planted direction and a drift; good: the drift alone."""
  place = tmp_path_factory.mktemp("diff")
  planted_D = 4 * diff_models.directions()[diff_models.PLANTED]
  diff_models.write_model(place / "base")
  diff_models.write_model(place / "bad", push_D=planted_D, noise=0.01)
  diff_models.write_model(place / "good", noise=0.01)
  diff_models.write_prompts(place / "prompts.jsonl")
  diff_models.write_sae(place / "sae")
  (place / "diff.py").write_text(CONFIG.format(place=place))
  return place


@pytest.fixture(scope="module")
def finished(place):
  """The directory of a whole diff, and what the job printed."""
  out = place / "whole"
  done = run(place, out)
  assert done.returncode == 0, done.stderr
  return out, json.loads(done.stdout.splitlines()[-1])


def line(place, out, *overrides):
  return [
    sys.executable,
    "-m",
    "sae_jax",
    "diff",
    f"--config={place / 'diff.py'}",
    f"--out={out}",
    *overrides,
  ]


def run(place, out, *overrides):
  return subprocess.run(
    line(place, out, *overrides), capture_output=True, text=True, timeout=300
  )


def test_the_planted_latent_rises_most_and_the_nulls_are_empty(
  place, tmp_path, command, capsys
):
  out = tmp_path / "out"
  assert (
    command(
      "diff",
      f"--config={place / 'diff.py'}",
      f"--out={out}",
      "--config.methods=('frozen',)",
      "--config.cards.latents=2",
    )
    == 0
  )
  result = json.loads(capsys.readouterr().out.splitlines()[-1])
  summary = json.loads((out / "summary.json").read_text())
  parts = {(p["method"], p["arm"]): p for p in summary["parts"]}
  bad = parts["frozen", "bad"]
  assert bad["control"] == "good"
  assert bad["risen"][0]["latent"] == diff_models.PLANTED
  assert bad["risen"][0]["changed"]
  assert result["risen"]["frozen/bad"][0] == diff_models.PLANTED
  assert parts["frozen_plain", "same"]["changed"] == 0
  assert summary["controls"]["null"]["null"]["changed"] == 0


@pytest.mark.slow
def test_the_table_has_every_latent_of_every_part(finished):
  out, result = finished
  for part in ("frozen/bad", "linear/bad"):
    assert result["risen"][part][0] == diff_models.PLANTED
  found = table.read(out / "latents.parquet", ["method", "arm", "score"])
  names = set(zip(found["method"], found["arm"], strict=True))
  assert ("frozen", "bad") in names and ("frozen_plain", "good") in names
  assert len(found["score"]) == len(names) * diff_models.F
  manifest = json.loads((out / "manifest.json").read_text())
  assert manifest["job"] == "diff" and not (out / "work").exists()
  with np.load(out / "directions.npz") as file:
    assert "linear/bad/mean_difference" in file.files


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["parts", "work"])
def test_killed_and_started_again_it_ends_with_the_same_table(
  place, finished, tmp_path, moment
):
  out = tmp_path / "killed"
  process = subprocess.Popen(
    line(place, out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
  )
  while process.poll() is None:
    directory = out / moment
    if directory.is_dir() and any(directory.iterdir()):
      process.send_signal(signal.SIGKILL)
      break
    time.sleep(0.002)
  assert process.wait() == -signal.SIGKILL
  assert not (out / "manifest.json").exists()
  done = run(place, out)
  assert done.returncode == 0, done.stderr
  whole = pathlib.Path(finished[0])
  for name in ("latents.parquet", "directions.npz", "cards.json"):
    assert (out / name).read_bytes() == (whole / name).read_bytes(), name
  again = run(place, out)
  assert again.returncode == 0 and "already compared" in again.stderr


@pytest.mark.parametrize(
  "override, message",
  [
    ("--config.sae=/nowhere", "/nowhere: no such directory"),
    ("--config.hook=blocks.9.hook_resid_post", "blocks.9"),
    ("--config.prompts.path=/nowhere", "prompts.path=/nowhere"),
    ("--config.skip_positions=99", "no token of"),
    ("--config.methods=('frozen','lens')", "needs the field lens"),
  ],
)
def test_bad_input_is_named_and_leaves_nothing(
  place, tmp_path, command_line, override, message
):
  out = tmp_path / "out"
  code, errors = command_line("diff", place, out, override)
  assert code == 2 and message in errors
  assert "Traceback" not in errors
  assert not (out / "manifest.json").exists()


@pytest.fixture
def command_line(command, capsys):
  def call(job, place, out, *overrides):
    code = command(
      job, f"--config={place / 'diff.py'}", f"--out={out}", *overrides
    )
    return code, capsys.readouterr().err

  return call
