# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What every diffing method is handed: evidence, dictionary, models, mesh."""

import collections
import dataclasses
import pathlib

import jax
import jax.numpy as jnp

from sae_jax import errors, lm, metrics, sae
from sae_jax.diff import config as config_lib
from sae_jax.diff import evidence as evidence_lib
from sae_jax.judge import prompts as prompts_lib


class Models:
  """Language models by name, whole and on the mesh; the last two are kept."""

  def __init__(
    self, config: config_lib.DiffConfig, mesh: jax.sharding.Mesh
  ) -> None:
    self._config = config
    self._mesh = mesh
    self._loaded: collections.OrderedDict[str, lm.LanguageModel]
    self._loaded = collections.OrderedDict()

  def source(self, name: str) -> str:
    """Where a model is from; "" if it has only a store."""
    name = "base" if name == "null" else name
    return self._config.base if name == "base" else self._config.arm(name).model

  def load(self, name: str) -> lm.LanguageModel:
    """The model called "base" or like an arm.

    Raises:
      errors.InputError: there is none, or it cannot be loaded.
    """
    source = self.source(name)
    if not source:
      field = "base" if name == "base" else f"the arm {name!r}'s model"
      raise errors.InputError(
        f"this method runs the models, but {field} is not given; give it beside"
        " the store, or leave the method out"
      )
    if source not in self._loaded:
      while len(self._loaded) > 1:
        self._loaded.popitem(last=False)
      self._loaded[source] = lm.load_lm(
        source, mesh=self._mesh, dtype=jnp.dtype(self._config.dtype)
      )
    self._loaded.move_to_end(source)
    return self._loaded[source]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
  """One diff while it runs.

  Attributes:
    dictionary: not yet placed on the mesh.
    work: scratch that survives a kill and is removed when the job is done.
    prompts: None where the evidence is stores from outside and none are given.
  """

  config: config_lib.DiffConfig
  evidence: evidence_lib.Evidence
  dictionary: sae.Sae
  mesh: jax.sharding.Mesh
  work: pathlib.Path
  prompts: prompts_lib.Prompts | None
  models: Models

  def model(self, name: str) -> lm.LanguageModel:
    return self.models.load(name)

  def tuned(self) -> list[config_lib.Arm]:
    return self.config.tuned()

  def control_of(self, arm: config_lib.Arm) -> config_lib.Arm | None:
    return self.config.control_of(arm)

  def arm(self, name: str) -> config_lib.Arm:
    return self.config.arm(name)

  def pairs(self) -> tuple[int, ...]:
    """Indices of the prompts with both responses; () without prompts."""
    return self.prompts.pairs if self.prompts is not None else ()

  def progress(self, total: int, unit: str) -> metrics.Progress:
    return metrics.Progress(total, unit, show=jax.process_index() == 0)
