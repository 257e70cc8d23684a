# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A small model on disk, and compilation that is quick."""

import pytest
import sft_model


@pytest.fixture(scope="session")
def llama_path(tmp_path_factory):
  return sft_model.write(tmp_path_factory.mktemp("llama"))
