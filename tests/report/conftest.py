# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A made-up run and its evaluation; a made-up diff and its page."""

import shutil

import diff_data
import pytest
import report_data

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
