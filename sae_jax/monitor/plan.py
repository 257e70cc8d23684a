# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which models a monitor reads, and that none is tested that taught it."""

import dataclasses
import pathlib
from collections.abc import Mapping

from sae_jax import artifacts, errors, formats
from sae_jax.interpret import diff_results
from sae_jax.judge import config as judge_config
from sae_jax.lm import load as load_lib
from sae_jax.monitor import config as config_lib
from sae_jax.monitor import probe as probe_lib
from sae_jax.monitor import series


@dataclasses.dataclass(frozen=True)
class Group:
  """A group of the config and its models as they lie on disk."""

  config: config_lib.GroupConfig
  base: series.Checkpoint
  runs: Mapping[str, tuple[series.Checkpoint, ...]]
  warnings: tuple[str, ...]

  def models(self) -> dict[str, str]:
    """Weights hash -> source, every model once, the base first."""
    found = {self.base.weights_hash: self.base.source}
    for checkpoints in self.runs.values():
      for checkpoint in checkpoints:
        found.setdefault(checkpoint.weights_hash, checkpoint.source)
    return found


def make(config: config_lib.MonitorConfig) -> tuple[Group, ...]:
  """Finds the models of all groups.

  Raises:
    errors.InputError: one is not there; or a run is to be tested that the
      diff selected latents on.
  """
  return tuple(_group(group) for group in config.groups)


def inputs(
  config: config_lib.MonitorConfig, groups: tuple[Group, ...]
) -> dict[str, str]:
  """Hashes of all that is read."""
  found = {}
  for group in groups:
    name, about = group.config.name, group.config
    found[f"{name}: base"] = group.base.weights_hash
    found[f"{name}: diff"] = diff_results.identity(about.diff)
    found[f"{name}: sae"] = formats.hash_sae(probe_lib.sae_path(about))
    found[f"{name}: prompts"] = _hash(about.prompts)
    if about.persona is not None:
      found[f"{name}: persona.positive"] = _hash(about.persona.positive)
      found[f"{name}: persona.negative"] = _hash(about.persona.negative)
    for run, checkpoints in group.runs.items():
      found[f"{name}: run {run}"] = artifacts.hash_json(
        [[c.step, c.weights_hash] for c in checkpoints]
      )
  if config.screening is not None:
    found["screening"] = artifacts.hash_input(
      "screening.path", config.screening.path
    )
  return found


def _group(group: config_lib.GroupConfig) -> Group:
  base = series.base(group)
  runs = {run.name: series.checkpoints(run, base) for run in group.runs}
  taught, warnings = _taught(group)
  for name, checkpoints in runs.items():
    for checkpoint in checkpoints:
      arm = taught.get(checkpoint.weights_hash)
      if arm is not None and name not in group.selection:
        raise errors.InputError(
          f"group {group.name!r}: run {name!r} has the model of arm {arm!r} of"
          f" {group.diff} at step {checkpoint.step}, and the latents were"
          " selected on that arm; add the run's name to selection, so that it"
          " is watched but not tested"
        )
  return Group(group, base, runs, tuple(warnings))


def _taught(
  group: config_lib.GroupConfig,
) -> tuple[dict[str, str], list[str]]:
  """Weights hash -> arm of the models that the diff's latents come from."""
  arms = {a["name"]: a for a in diff_results.summary(group.diff)["arms"]}
  name = group.arm or diff_results.only_arm(group.diff)
  if name not in arms:
    raise errors.InputError(
      f"group {group.name!r}: {group.diff} has no arm {name!r}; it has"
      f" {', '.join(arms)}"
    )
  found, unknown = {}, []
  for arm in (name, arms[name]["control"]):
    if not arm:
      continue
    model = arms[arm]["model"]
    place = pathlib.Path(model).expanduser()
    if (
      place.is_file()
      or (place / "config.json").is_file()
      or (load_lib.is_adapter(place))
    ):
      found[load_lib.weights_hash(model)] = arm
    else:
      unknown.append(
        f"group {group.name!r}: arm {arm!r} of {group.diff} is not at {model}"
        " any more, so it cannot be checked that no tested run is that arm"
      )
  return found, unknown


def _hash(prompts: judge_config.PromptsConfig) -> str:
  return artifacts.hash_input("prompts.path", prompts.path)
