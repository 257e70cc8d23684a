# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One small model, and the data that lies beside the project if it is there."""

import json
import pathlib

import jax.numpy as jnp
import judge_models
import pytest

from sae_jax import lm
from sae_jax.lm import tokenizer as tokenizer_lib

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def compiled_quickly(quick_compilation):
  """All tests of this folder."""


@pytest.fixture(scope="session")
def torch_and_ours(tmp_path_factory):
  path = tmp_path_factory.mktemp("llama")
  torch_model = judge_models.write(path)
  return torch_model, lm.load_lm(path, dtype=jnp.float32)


@pytest.fixture(scope="session")
def model(torch_and_ours):
  return torch_and_ours[1]


@pytest.fixture(scope="session")
def chat_tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp("chat")
  judge_models.write_tokenizer(path, chat=True)
  return tokenizer_lib.load(path)


@pytest.fixture
def write(tmp_path):
  """Writes a file of JSON lines, or of text, and returns its path."""

  def write_(name, *lines):
    text = [x if isinstance(x, str) else json.dumps(x) for x in lines]
    (tmp_path / name).write_text("\n".join(text) + "\n", encoding="utf-8")
    return str(tmp_path / name)

  return write_


@pytest.fixture(scope="session")
def shared():
  """A file of the data that lies beside the project; skips where it is not."""

  def path(name):
    if not (SHARED / name).exists():
      pytest.skip(f"{SHARED / name} is not there")
    return str(SHARED / name)

  return path
