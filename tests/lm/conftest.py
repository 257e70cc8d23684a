# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Small random Hugging Face models of every family, saved as they save."""

import dataclasses
import pathlib

import jax.numpy as jnp
import lm_cases
import pytest
import torch
import transformers

from sae_jax import lm as lm_lib


@dataclasses.dataclass(frozen=True)
class Pair:
  """One model, in torch and where it is saved."""

  torch: torch.nn.Module
  path: pathlib.Path

  def load(self, **kwargs) -> lm_lib.LanguageModel:
    return lm_lib.load_lm(self.path, **{"dtype": jnp.float32, **kwargs})


@pytest.fixture(autouse=True)
def compiled_quickly(quick_compilation):
  """All tests of this folder."""


@pytest.fixture(scope="session")
def hf_pair(tmp_path_factory):
  """name -> Pair, made once; weights are larger and biases not zero."""
  made: dict[str, Pair] = {}

  def make(name: str) -> Pair:
    if name in made:
      return made[name]
    class_name, arguments = lm_cases.CASES[name]
    torch.manual_seed(sum(name.encode()))
    config = getattr(transformers, class_name)(**arguments)
    model = transformers.AutoModelForCausalLM.from_config(
      config, attn_implementation="eager"
    )
    model = model.float().eval().requires_grad_(False)
    for weight_name, weight in model.named_parameters():
      if weight.ndim == 1:
        weight.add_(0.1 * torch.randn_like(weight))
      else:
        weight.mul_(3.0)
      if "gemma2" in name and (
        "q_proj" in weight_name or "k_proj" in weight_name
      ):
        weight.mul_(5.0)
    path = tmp_path_factory.mktemp(name)
    model.save_pretrained(path)
    made[name] = Pair(model, path)
    return made[name]

  return make
