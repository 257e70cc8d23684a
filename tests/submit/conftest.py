# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A job to submit, and programs that stand for the engines'."""

import json
import os
import pathlib

import lines
import pytest
import yaml

from sae_jax import submit

CONFIG = """
from sae_jax import sae, stream
from sae_jax.train import config

def get_config():
  return config.TrainConfig(
    store="/shared/store", hook="blocks.0.hook_resid_post",
    sae=sae.SaeConfig(latents=64, k=4),
    stream=stream.StreamConfig(batch_size=64), steps=4,
  )
"""


@pytest.fixture
def config(tmp_path):
  path = tmp_path / "experiment.py"
  path.write_text(CONFIG)
  return path


@pytest.fixture
def plan(config):
  """The plan of an engine for a training job with these options."""

  def make(engine, out, *options, words=()):
    name, chosen, request = submit.read(
      [
        *(f"--engine={engine}", *options, "train", f"--config={config}"),
        *("--config.steps=8", f"--out={out}", *words),
      ],
      submit.ENGINES,
      ["train"],
    )
    return submit.ENGINES[name].plan(request, chosen)

  return make


@pytest.fixture
def rendered(plan):
  return lambda *arguments: yaml.safe_load(plan(*arguments).document)


@pytest.fixture
def manifests(rendered):
  """Every kind of manifest, by hand and filled in."""
  shipped = [
    yaml.safe_load((lines.LAUNCH / name).read_text())
    for name in lines.BY_HAND
    if name.endswith(".yaml")
  ]
  return [
    *shipped,
    rendered(*lines.TPU),
    rendered(*lines.TPU, "--slices=2", "--queue=q", "--spot", "--namespace=n"),
    rendered(*lines.GPU),
    rendered(
      *lines.GPU, "--accelerator=nvidia-h100-80gb", "--queue=q", "--spot"
    ),
    rendered(*lines.SKY, "--bucket=s3://b", "--infra=aws"),
    rendered(*lines.SKY, "--volume=v", "--nodes=2", "--spot=false"),
    rendered(*lines.SKY[:2], "--accelerators=tpu-v6e-16", "--volume=v"),
  ]


class Program:
  """An executable that notes how it was called."""

  def __init__(self, path: pathlib.Path):
    self.log = path.with_suffix(".calls")

  def calls(self) -> list[list[str]]:
    if not self.log.exists():
      return []
    return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def program(tmp_path, monkeypatch):
  """Puts programs of these names first on the PATH."""
  directory = tmp_path / "bin"
  directory.mkdir()
  monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

  def make(name: str, script: str) -> Program:
    path = directory / name
    made = Program(path)
    # One JSON list of words a call; no Python, which takes its time to start.
    path.write_text(
      "#!/usr/bin/env bash\n"
      "words='' sep=''\n"
      'for word in "$@"; do\n'
      '  word=${word//\\\\/\\\\\\\\} word=${word//\\"/\\\\\\"}\n'
      "  words+=\"$sep\\\"${word//$'\\n'/\\\\n}\\\"\" sep=', '\n"
      "done\n"
      f'echo "[$words]" >>{made.log}\n{script}\n'
    )
    path.chmod(0o755)
    return made

  return make
