# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer on disk, made once."""

import jax
import pytest
import tiny_models


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
  """Halves XLA's compile time, which is most of what these tests take."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def words_path(tmp_path_factory):
  path = tmp_path_factory.mktemp("words")
  tiny_models.write_words(path)
  return path
