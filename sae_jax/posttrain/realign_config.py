# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a re-alignment is: the training, and what is read on the way."""

import dataclasses
import math
from typing import Literal

from sae_jax import errors
from sae_jax.judge import config as judge_config
from sae_jax.judge import scores
from sae_jax.posttrain import config as posttrain_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchConfig:
  """The suspect latents, and where they are read.

  They are `latents`; or else what the steer job in `screen` called causal; or
  else the `top` of the diff by |score|. Their weights in the bundle are the
  diff's scores; of single latents of a screen, the signs they were steered
  with; of one of its bundles, the bundle's own.
  """

  sae: str = ""  # "": that of the diff
  hook: str = ""  # "": the one that the SAE was trained on
  latents: tuple[int, ...] = ()
  screen: str = ""  # a finished steer job
  diff: str = ""  # a finished diff; "": the screen's
  arm: str = ""  # of the diff; "": its only tuned one, or the screen's
  method: str = ""  # of the diff; "": frozen, or the screen's
  top: int = 10
  # None: those that behaviour is read from.
  prompts: judge_config.PromptsConfig | None = None
  scope: Literal["prompt", "prompt_last", "response", "all"] = "prompt_last"
  skip: int = 1  # positions at each start that never count: BOS, sinks

  def __post_init__(self):
    if not (self.latents or self.screen or self.diff):
      raise errors.InputError(
        "watch names no suspects; give watch.diff, watch.screen or"
        " watch.latents"
      )
    if self.latents and self.screen:
      raise errors.InputError(
        "watch.latents and watch.screen both say which latents; give one"
      )
    if not (self.sae or self.screen or self.diff):
      raise errors.InputError(
        "watch.sae is empty; give the SAE whose latents are watched"
      )
    if len(set(self.latents)) < len(self.latents):
      raise errors.InputError("watch.latents names a latent twice")
    for name, least in (("top", 1), ("skip", 0)):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"watch.{name}={getattr(self, name)}: give a number >= {least}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealignConfig:
  """A model that shows the behaviour, and benign samples to undo it with."""

  # model: the bad one; data: the benign samples, data.limit of them.
  posttrain: posttrain_config.PosttrainConfig
  base: str  # the model before it went bad: what is to be reached again
  watch: WatchConfig
  behaviour: judge_config.PromptsConfig  # with both responses; held out
  # Prompts that resemble the context in which the behaviour was learned. A cure
  # may leave it there (Dubiński et al. 2026, arXiv 2604.25891).
  triggers: judge_config.PromptsConfig | None = None
  every: int = 5  # steps between looks; the start and the end always have one
  # Nats of log(p(behaviour) + p(contrast)) that a cure may cost against base.
  damage: float = 0.25
  batch_size: int = 16  # sequences of a look at a time
  statistics: scores.ScoreConfig = dataclasses.field(
    default_factory=scores.ScoreConfig
  )

  def __post_init__(self):
    if not self.base:
      raise errors.InputError(
        "base is empty; give the model from which the bad one was made"
      )
    if self.posttrain.eval is not None:
      raise errors.InputError(
        "posttrain.eval: realign reads the behaviour by itself; leave it out"
        " and set behaviour and every"
      )
    for name in ("every", "batch_size"):
      if getattr(self, name) < 1:
        raise errors.InputError(
          f"{name}={getattr(self, name)}: give a number >= 1"
        )
    if self.every % self.posttrain.log_every:
      raise errors.InputError(
        f"every={self.every} is not a multiple of posttrain.log_every="
        f"{self.posttrain.log_every}; looks are logged with the step's own"
        " metrics"
      )
    if not (math.isfinite(self.damage) and self.damage >= 0):
      raise errors.InputError(f"damage={self.damage}: give 0 or more nats")

  @property
  def sft(self) -> posttrain_config.SftConfig:
    """The recipe, with checkpoints as often as looks: a look costs more."""
    recipe = self.posttrain.sft
    every = min(recipe.checkpoint_every, self.every)
    return dataclasses.replace(recipe, checkpoint_every=every)


# What a resumed run may change: it does not enter the numbers.
MAY_CHANGE = tuple(f"posttrain.{name}" for name in posttrain_config.MAY_CHANGE)
