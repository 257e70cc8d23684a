# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The judge that a config asks for."""

import pathlib

from sae_jax import endpoint
from sae_jax.judge import classifier, interface, llm
from sae_jax.judge import config as config_lib
from sae_jax.judge import fluency as fluency_lib


def make(
  config: config_lib.JudgeConfig,
  *,
  cache: pathlib.Path | None = None,
  fluency: fluency_lib.Fluency | None = None,
) -> interface.Judge:
  """Makes a judge; asks nothing yet, see `interface.Judge.check`.

  Args:
    config: which one.
    cache: where a chat model's replies are kept; None: nowhere.
    fluency: what tells incoherent answers from those off topic, for rules.

  Raises:
    errors.InputError: the rules cannot be read, or the endpoint's key is not
      there.
  """
  if config.kind == "rules":
    return classifier.Rules(config.rules, fluency)
  if config.endpoint is not None:
    return llm.Llm(config, endpoint.Endpoint(config.endpoint, cache))
  return classifier.Answers()
