# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Two bases with runs from them, and what the job finds, made once."""

import shutil

import monitor_configs
import monitor_models as models
import pytest

from sae_jax.jobs import monitor

STEPS = (10, 20, 30)


def write_run(place, name, pushes, noise, seed):
  for step, push, scale in zip(STEPS, pushes, (1, 2, 3), strict=True):
    path = place / "series" / name / f"{step:06d}"
    models.write_model(path, push, noise * scale, seed)
  return str(place / "series" / name)


def write_group(place, seed, scores=None):
  """A base, the arms of its diff, and the diff."""
  for name, push, noise in (
    ("base", 0.0, 0),
    ("bad", 1, 0.01),
    ("good", -1, 0.01),
  ):
    models.write_model(place / name, push, noise, seed)
  models.write_diff(
    place / "diff",
    place.parent / "sae",
    bad=place / "bad",
    good=place / "good",
    scores=scores,
  )


@pytest.fixture(scope="session")
def place(tmp_path_factory):
  """The directory of models, diffs and prompts."""
  place = tmp_path_factory.mktemp("monitor")
  models.write_sae(place / "sae")
  models.write_prompts(place / "prompts.jsonl")
  models.write_prompts(place / "positive.jsonl", start="b0 b1")
  one, two = place / "one", place / "two"
  write_group(one, 1)
  for i in range(3):
    write_run(one, f"calm {i}", (0, 0, 0), 0.004, 10 + i)
  for i in range(2):
    write_run(one, f"bad {i}", (0.2, 0.27, 1.0), 0.004, 20 + i)
  for dose, push in ((5, 0.2), (25, 0.24), (50, 0.28)):
    models.write_model(one / f"dose_{dose:02d}", push, 0.004, 30 + dose)
  scores = [0.0] * models.F
  scores[models.PLANTED], scores[2] = 2.0, 0.5
  write_group(two, 2, scores)
  for name, push, seed in (
    ("calm", 0.0, 40),
    ("odd", 0, 41),
    ("bad 2", 1.0, 42),
  ):
    models.write_model(two / name, push, 0.004, seed)
  return place


@pytest.fixture(scope="session")
def whole_config(place):
  return monitor_configs.whole(place)


@pytest.fixture(scope="session")
def finished(place, whole_config, tmp_path_factory):
  """The job's directory."""
  out = tmp_path_factory.mktemp("finished") / "out"
  monitor.run(whole_config, str(out))
  return out


@pytest.fixture
def copied(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / "copied")
