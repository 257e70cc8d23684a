# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer on disk, made once."""

import pytest
import tiny_models


@pytest.fixture(autouse=True)
def compiled_quickly(quick_compilation):
  """All tests of this folder."""


@pytest.fixture(scope="session")
def words_path(tmp_path_factory):
  path = tmp_path_factory.mktemp("words")
  tiny_models.write_words(path)
  return path
