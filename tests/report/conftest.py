# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A made-up run and its evaluation; a made-up diff, and what followed."""

import shutil

import diff_data
import monitor_data
import pytest
import realign_data
import report_data
import steer_data

from sae_jax import report


@pytest.fixture
def run(tmp_path):
  return report_data.make_run(tmp_path / "run")


@pytest.fixture
def evaluation(tmp_path, run):
  return report_data.make_evaluation(tmp_path / "eval", run=str(run))


@pytest.fixture(scope="session")
def made_diff(tmp_path_factory):
  return diff_data.make_diff(tmp_path_factory.mktemp("made") / "diff")


@pytest.fixture
def diff(made_diff, tmp_path):
  return shutil.copytree(made_diff, tmp_path / "diff")


@pytest.fixture(scope="session")
def written_diff(made_diff, tmp_path_factory):
  out = tmp_path_factory.mktemp("page") / "page.html"
  return report.write_report([made_diff], out)


@pytest.fixture(scope="session")
def made_findings(made_diff, tmp_path_factory):
  """What followed from the made-up diff: a screen, a cure, a monitor."""
  at = tmp_path_factory.mktemp("findings")
  return [
    steer_data.make_steer(at / "steer", diff=made_diff),
    realign_data.make_realign(at / "realign", diff=made_diff),
    monitor_data.make_monitor(at / "monitor", diff=made_diff),
  ]


@pytest.fixture(scope="session")
def written_story(made_diff, made_findings, tmp_path_factory):
  """The page about all of it; the order given does not matter."""
  out = tmp_path_factory.mktemp("story") / "page.html"
  return report.write_report([*made_findings[::-1], made_diff], out)
