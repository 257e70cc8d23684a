# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A made-up run and its evaluation."""

import pytest
import report_data


@pytest.fixture
def run(tmp_path):
  return report_data.make_run(tmp_path / "run")


@pytest.fixture
def evaluation(tmp_path, run):
  return report_data.make_evaluation(tmp_path / "eval", run=str(run))
