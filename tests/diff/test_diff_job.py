# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax diff` from models and from stores to files, and again after kills.

Ground truth: a direction that is added to one word's embedding is the latent
that changed; a model compared with itself has none.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import diff_models
import jax
import numpy as np
import pytest

from sae_jax import config as config_lib
from sae_jax import mesh as mesh_lib
from sae_jax.diff import table
from sae_jax.jobs import diff

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


@pytest.fixture(autouse=True, scope="module")
def quick(quick_compilation):
  """Most of the time here is XLA's."""


@pytest.fixture(scope="module")
def finished(place):
  """The directory of a whole diff, and what the job returned."""
  config = config_lib.load(str(place / "diff.py"), diff.Config)
  with pytest.MonkeyPatch.context() as patch:
    one_device(patch)
    return place / "whole", diff.run(config, str(place / "whole"))


def one_device(patch):
  """As a process has that is not told how many."""
  patch.setattr(mesh_lib, "_all_devices", lambda: jax.devices()[:1])


@pytest.fixture(scope="module")
def killed(place):
  """What a killed diff leaves, by the directory that had something in it.

  One process: it stands still while what a SIGKILL then would leave is copied.
  """
  out, left = place / "killed", {}
  # Compiled as here: a program of other optimizations may round otherwise.
  told = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
  process = subprocess.Popen(
    [sys.executable, "-m", "sae_jax", *line(place, out)],
    env=os.environ | told,
    stderr=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
  )
  while process.poll() is None and len(left) < 2:
    for moment in {"work", "parts"} - left.keys():
      if (out / moment).is_dir() and any((out / moment).iterdir()):
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        left[moment] = shutil.copytree(out, place / f"killed in {moment}")
        process.send_signal(signal.SIGCONT)
    time.sleep(0.002)
  process.kill()
  assert process.wait() == -signal.SIGKILL
  return left


def line(place, out, *overrides):
  config = f"--config={place / 'diff.py'}"
  return ["diff", config, f"--out={out}", *overrides]


def test_the_planted_latent_rises_most_and_the_nulls_are_empty(
  place, tmp_path, command, capsys
):
  out = tmp_path / "out"
  changes = ("--config.methods=('frozen',)", "--config.cards.latents=2")
  assert command(*line(place, out, *changes)) == 0
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
  place, finished, killed, command, capsys, monkeypatch, moment
):
  one_device(monkeypatch)
  out, (whole, _) = killed[moment], finished
  assert any((out / moment).iterdir())
  assert not (out / "manifest.json").exists()
  assert command(*line(place, out)) == 0
  for name in ("latents.parquet", "directions.npz", "cards.json"):
    assert (out / name).read_bytes() == (whole / name).read_bytes(), name
  capsys.readouterr()
  assert command(*line(place, out)) == 0
  assert "already compared" in capsys.readouterr().err


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
  code, errors = command_line(place, out, override)
  assert code == 2 and message in errors
  assert "Traceback" not in errors
  assert not (out / "manifest.json").exists()


@pytest.fixture
def command_line(command, capsys):
  def call(place, out, *overrides):
    code = command(*line(place, out, *overrides))
    return code, capsys.readouterr().err

  return call
