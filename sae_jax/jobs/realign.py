# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax realign`: a bad model and benign samples in; is it good again?"""

import sys
from typing import Any

import jax

from sae_jax import artifacts, errors, formats, mesh
from sae_jax import config as config_lib
from sae_jax.lm import load
from sae_jax.posttrain import (
  realign,
  realign_config,
  suspects,
)

Config = realign_config.RealignConfig


def run(config: Config, out: str) -> dict[str, Any]:
  """Trains, resumes, or returns the result of the finished run in `out`."""
  mesh.refuse_processes("realign")
  with artifacts.open_output(
    out,
    job="realign",
    config=config_lib.to_dict(config),
    inputs=_inputs(config),
    may_change=realign_config.MAY_CHANGE,
  ) as output:
    if output.finished is not None:
      print(f"{output.path} is already re-aligned", file=sys.stderr)
      return output.finished["result"]
    result = realign.run(config, output)
    output.finish(result, device=jax.devices()[0].device_kind)
  return result


def _inputs(config: Config) -> dict[str, str]:
  """Hashes of what is read.

  Raises:
    errors.InputError: something is not there, or base and start are the same.
  """
  found = {
    "base": load.weights_hash(config.base),
    "model": load.weights_hash(config.posttrain.model),
    "data": artifacts.hash_input(
      "posttrain.data.path", config.posttrain.data.path
    ),
    "behaviour": artifacts.hash_input("behaviour.path", config.behaviour.path),
  }
  if found["base"] == found["model"]:
    raise errors.InputError(
      f"base={config.base} and posttrain.model={config.posttrain.model} have"
      " the same weights; posttrain.model is the one that shows the behaviour"
    )
  for name, prompts in (
    ("triggers", config.triggers),
    ("watch.prompts", config.watch.prompts),
  ):
    if prompts is not None:
      found[name] = artifacts.hash_input(f"{name}.path", prompts.path)
  chosen = suspects.choose(config.watch)
  found["sae"] = formats.hash_sae(chosen.sae)
  return found | suspects.identity(config.watch)
