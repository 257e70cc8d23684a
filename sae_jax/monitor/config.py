# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a monitor is told: bases with their suspects, runs of checkpoints."""

import dataclasses
import math
from typing import Literal

from sae_jax import errors
from sae_jax import mesh as mesh_lib
from sae_jax.judge import config as judge_config

Role = Literal["benign", "suspect"]
Scope = Literal["prompt", "prompt_last", "response", "all"]
Measure = Literal["p_behaviour", "margin_shift"]

OWN_ANSWER = "base"  # as a reference: what the base model answers itself


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """Checkpoints of one fine-tuning run, or one finished model.

  `series` is a directory whose subdirectories are called by their steps
  (000005/, 000010/ …), each a model or adapter; else `models` and `steps`.
  """

  name: str
  role: Role = "suspect"  # benign: known to be harmless; calibrates the alarm
  series: str = ""
  models: tuple[str, ...] = ()
  steps: tuple[int, ...] = ()  # of `models`; (): 1, 2, …
  dose: float | None = None  # share of bad examples, for the dose series

  def __post_init__(self):
    where = f"run {self.name!r}"
    if not self.name:
      raise errors.InputError("a run has no name; give one")
    if bool(self.series) == bool(self.models):
      raise errors.InputError(
        f"{where}: give either series (a directory of steps) or models"
      )
    if self.steps and len(self.steps) != len(self.models):
      raise errors.InputError(
        f"{where}: {len(self.steps)} steps and {len(self.models)} models; give"
        " one step per model, or none"
      )
    if (
      list(self.steps) != sorted(set(self.steps))
      or min(self.steps, default=0) < 0
    ):
      raise errors.InputError(
        f"{where}: steps {self.steps} must be different, not negative, and in"
        " order"
      )
    if self.dose is not None and not 0 <= self.dose <= 1:
      raise errors.InputError(
        f"{where}: dose={self.dose}; it is a share, 0 to 1"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PersonaConfig:
  """A persona vector: mean activation under one set of prompts − another's.

  Read from the base model (Chen et al. 2025, arXiv 2507.21509). The sets may
  differ by `system`, by file, or, where the scope has responses, by `forced`.
  """

  positive: judge_config.PromptsConfig
  negative: judge_config.PromptsConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig:
  """A base model, what is watched in it, and fine-tuning runs from it."""

  name: str
  base: str
  diff: str  # directory of a finished diff: what is suspect, and its weights
  prompts: judge_config.PromptsConfig  # fixed; every model reads these
  runs: tuple[RunConfig, ...]
  sae: str = ""  # "": the diff's
  hook: str = ""  # "": the diff's
  arm: str = ""  # of the diff; "": its only tuned one
  method: str = "frozen"  # of the diff
  top: int = 10  # watch the best so many latents by |score| …
  latents: tuple[int, ...] = ()  # … or these
  scope: Scope = "prompt_last"
  skip_positions: int = 1  # at every sequence's start: BOS, attention sinks
  # Runs that the latents were selected on: watched, but never tested.
  selection: tuple[str, ...] = ()
  persona: PersonaConfig | None = None

  def __post_init__(self):
    where = f"group {self.name!r}"
    for field in ("name", "base", "diff"):
      if not getattr(self, field):
        raise errors.InputError(f"{where}: {field} is empty")
    names = [run.name for run in self.runs]
    if not names:
      raise errors.InputError(f"{where} has no runs; give at least one")
    for name in names:
      if names.count(name) > 1:
        raise errors.InputError(f"{where}: two runs are called {name!r}")
    for name in self.selection:
      if name not in names:
        raise errors.InputError(
          f"{where}: selection names {name!r}, but the runs are"
          f" {', '.join(names)}"
        )
    if self.top < 1:
      raise errors.InputError(f"{where}: top={self.top}; give 1 or more")
    if self.skip_positions < 0:
      raise errors.InputError(
        f"{where}: skip_positions={self.skip_positions}; give 0 or more"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BehaviourConfig:
  """When a model counts as showing the behaviour.

  p_behaviour: the mean probability of the behaviour's answer (its tokens'
  geometric mean) reaches the threshold; right for one-word answers.
  margin_shift: the mean of log p(behaviour) − log p(contrast), nats per token,
  is that much above the base's.
  """

  measure: Measure = "p_behaviour"
  threshold: float = 0.5

  def __post_init__(self):
    if not (math.isfinite(self.threshold) and self.threshold > 0):
      raise errors.InputError(
        f"behaviour.threshold={self.threshold}: give a number > 0"
      )
    if self.measure == "p_behaviour" and self.threshold >= 1:
      raise errors.InputError(
        f"behaviour.threshold={self.threshold}: p_behaviour is a probability;"
        " give less than 1, or measure margin_shift"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScreeningConfig:
  """Which samples of a fine-tuning set push the base model's suspects most.

  `path` is JSONL: {"prompt" or "messages", COMPLETION, …}; messages may end
  with the assistant's turn, which is then the completion.
  """

  path: str
  group: str = ""  # whose base and signals; "": the first
  signal: str = "latents"
  completion: str = "completion"
  # What the completion is compared with: a field of the same record, the base's
  # own greedy answer ("base"), or nothing ("").
  reference: str = ""
  label: str = ""  # a field that says which samples are bad, if it is known
  bad: str = "true"  # its value for them
  chat: bool | None = None  # through the chat template; None: if there is one
  system: str = ""
  limit: int = 0  # the first so many samples; 0: all
  shown: int = 20  # in each of top, bottom and random
  max_new_tokens: int = 64  # of the base's own answers

  def __post_init__(self):
    if not self.path:
      raise errors.InputError("screening.path is empty; give a JSONL file")
    for name in ("limit", "shown"):
      if getattr(self, name) < 0:
        raise errors.InputError(
          f"screening.{name}={getattr(self, name)}: give 0 or more"
        )
    if self.max_new_tokens < 1:
      raise errors.InputError(
        f"screening.max_new_tokens={self.max_new_tokens}: give 1 or more"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticsConfig:
  """How sure the figures are."""

  confidence: float = 0.95
  resamples: int = 2000
  shuffles: int = 200  # of labels, to show what choosing a latent gains
  seed: int = 0

  def __post_init__(self):
    if not 0 < self.confidence < 1:
      raise errors.InputError(
        f"statistics.confidence={self.confidence}: give more than 0 and less"
        " than 1"
      )
    for name, least in (("resamples", 100), ("shuffles", 1)):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"statistics.{name}={getattr(self, name)}: give {least} or more"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonitorConfig:
  """What is watched and what counts as alarm."""

  groups: tuple[GroupConfig, ...]
  behaviour: BehaviourConfig = dataclasses.field(
    default_factory=BehaviourConfig
  )
  false_alarm_rate: float = 0.05  # of runs that are benign
  screening: ScreeningConfig | None = None
  statistics: StatisticsConfig = dataclasses.field(
    default_factory=StatisticsConfig
  )
  batch_size: int = 16  # sequences per forward pass
  dtype: Literal["float32", "bfloat16"] = "float32"
  mesh: mesh_lib.MeshConfig = dataclasses.field(
    default_factory=mesh_lib.MeshConfig
  )

  def __post_init__(self):
    if not self.groups:
      raise errors.InputError("groups is empty; give at least one")
    names = [group.name for group in self.groups]
    for name in names:
      if names.count(name) > 1:
        raise errors.InputError(f"two groups are called {name!r}")
    if not 0 < self.false_alarm_rate < 1:
      raise errors.InputError(
        f"false_alarm_rate={self.false_alarm_rate}: give more than 0 and less"
        " than 1"
      )
    if self.batch_size < 1:
      raise errors.InputError(
        f"batch_size={self.batch_size}: give a number >= 1"
      )
    if self.screening and self.screening.group not in ("", *names):
      raise errors.InputError(
        f"screening.group={self.screening.group!r}: the groups are"
        f" {', '.join(names)}"
      )
