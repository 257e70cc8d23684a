# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The models of a screen, one in memory at a time, and their prompts."""

import jax
import jax.numpy as jnp

from sae_jax import errors, lm
from sae_jax.intervene import config as config_lib
from sae_jax.judge import config as judge_config
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import load as load_lib

_NAMES = ("base", "tuned", "control")


def sources(config: config_lib.SteerConfig) -> dict[str, str]:
  """Name -> where it is from, of those that are given."""
  given = (config.base, config.tuned, config.control)
  return {n: s for n, s in zip(_NAMES, given, strict=True) if s}


class Models:
  """Loads by name; the one before is let go of first."""

  def __init__(
    self,
    config: config_lib.SteerConfig,
    mesh: jax.sharding.Mesh,
    d_model: int,
    hooks: tuple[str, ...],
  ) -> None:
    self._config, self._mesh = config, mesh
    self._d_model, self._hooks = d_model, hooks
    self._name = ""
    self._model: lm.LanguageModel | None = None

  def load(self, name: str) -> lm.LanguageModel:
    """The model called "base", "tuned" or "control".

    Raises:
      errors.InputError: it cannot be loaded, or dictionary and hooks do not
        fit it.
    """
    if self._model is not None and self._name == name:
      return self._model
    self._model = None  # two need not fit in memory
    model = lm.load_lm(
      sources(self._config)[name],
      mesh=self._mesh,
      dtype=jnp.dtype(self._config.dtype),
    )
    if model.config.d_model != self._d_model:
      raise errors.InputError(
        f"{self._config.sae} takes activations of width {self._d_model}, but"
        f" {model.source} has {model.config.d_model}; give an SAE of this model"
      )
    for hook in self._hooks:
      lm.parse_hook(hook, model.config.num_layers)
    self._name, self._model = name, model
    return model


def prompts(
  config: config_lib.SteerConfig, told: judge_config.PromptsConfig
) -> prompts_lib.Prompts:
  """Prompts as tokens, the same for all models.

  Raises:
    errors.InputError: they cannot be read, or the models' tokenizers disagree.
  """
  found = None
  for name, source in sources(config).items():
    own = prompts_lib.load(told, load_lib.open_tokenizer(source))
    if found is None:
      found = own
    for ours, theirs in zip(found.prompts, own.prompts, strict=True):
      if ours != theirs:
        raise errors.InputError(
          f"{name}={source}: its tokenizer makes other tokens of prompt"
          f" {ours.id!r} than that of {config.base}; compare models that share"
          " tokenizer and chat template"
        )
  assert found is not None
  return found
