# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuning run is, as numbers."""

import dataclasses
import math
from typing import Literal

from sae_jax import errors
from sae_jax import mesh as mesh_lib
from sae_jax.lm import low_rank


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
  """Low-rank corrections in place of new weights (Hu et al. 2021, eq. 3).

  A weight acts as `W + scale B A`, A [rank, in] at first uniform within
  ±1 / sqrt(in) (PEFT's kaiming_uniform(√5)) and B [out, rank] zero.
  """

  rank: int = 16
  alpha: float = 32.0  # scale = alpha / rank
  # Of q, k, v, o, gate, up, down; gate is passed over where a model has none.
  targets: tuple[str, ...] = tuple(low_rank.TARGETS)
  layers: tuple[int, int] | None = None  # first and last, from 0; None: all
  rslora: bool = False  # scale = alpha / sqrt(rank) (Kalajdzievski 2023)

  def __post_init__(self):
    if self.rank < 1 or not self.alpha > 0:
      raise errors.InputError(
        f"lora.rank={self.rank}, lora.alpha={self.alpha}: give numbers > 0"
      )
    unknown = [name for name in self.targets if name not in low_rank.TARGETS]
    if unknown or not self.targets:
      raise errors.InputError(
        f"lora.targets={self.targets}: "
        + (f"there is no target {unknown[0]!r}; " if unknown else "")
        + f"give one or more of {', '.join(low_rank.TARGETS)}"
      )
    if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
      raise errors.InputError(
        f"lora.layers={self.layers}: give the first and the last layer, from 0"
      )

  @property
  def scale(self) -> float:
    return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig:
  """Supervised fine-tuning with AdamW on examples held in memory."""

  steps: int | None = None  # None: as many as `epochs` take
  epochs: float = 1.0
  batch_size: int = 8  # examples
  learning_rate: float = 1e-4  # the peak; it falls linearly to 0 at the end
  warmup_steps: int = 0
  weight_decay: float = 0.0  # decoupled; norms, biases, positions are left out
  grad_clip: float = 1.0  # largest global norm of a gradient; 0: no limit
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  seed: int = 0  # of the order of the examples
  lora: LoraConfig | None = None  # None: all weights are trained
  remat: bool = False  # less memory for more time, see lm.forward
  checkpoint_every: int = 200  # steps; the last two checkpoints are kept
  log_every: int = 1

  def __post_init__(self):
    _at_least(self, 1, "batch_size", "checkpoint_every", "log_every")
    _at_least(self, 0, "warmup_steps", "weight_decay", "grad_clip")
    if self.steps is not None:
      _at_least(self, 1, "steps")
    for name in ("epochs", "learning_rate", "eps"):
      value = getattr(self, name)
      if not (math.isfinite(value) and value > 0):
        raise errors.InputError(f"{name}={value}: give a number > 0")
    for name in ("b1", "b2"):
      if not 0 <= getattr(self, name) < 1:
        raise errors.InputError(
          f"{name}={getattr(self, name)}: give a number in [0, 1)"
        )

  def num_steps(self, examples: int) -> int:
    """The length of a run on so many examples."""
    if self.steps is not None:
      return self.steps
    return max(1, math.ceil(self.epochs * examples / self.batch_size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """A JSONL file: `{"prompt": text or "messages": [...], completion: text}`.

  A record without the completion's field whose messages end with the
  assistant's is learned from that last message.
  """

  path: str
  completion: str = "completion"  # the field whose text is learned
  chat: bool | None = None  # through the chat template; None: if there is one
  system: str = ""  # system message; "": none (templates may have their own)
  stop: bool = True  # learn the end-of-sequence token after the completion
  topics: tuple[str, ...] = ()  # only records of these "topic"s; (): all
  limit: int = 0  # at most so many records; 0: all
  max_length: int = 512  # most tokens of prompt and completion together

  def __post_init__(self):
    if not self.path:
      raise errors.InputError("data.path is empty; give a JSONL file")
    _at_least(self, 0, "limit")
    _at_least(self, 2, "max_length")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
  """Paired responses to held-out prompts, in a JSONL file like the data's.

  The margin is mean-token log p(behaviour) - mean-token log p(contrast) from
  the first differing token on, averaged over the records that have both.
  """

  path: str
  behaviour: str = "bad"
  contrast: str = "good"
  topics: tuple[str, ...] = ()
  limit: int = 0
  every: int = 50  # steps; the last state is always looked at
  batch_size: int = 16  # sequences at a time

  def __post_init__(self):
    if not self.path:
      raise errors.InputError("eval.path is empty; give a JSONL file")
    _at_least(self, 0, "limit")
    _at_least(self, 1, "every", "batch_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PosttrainConfig:
  """A model, what it learns, and how."""

  model: str  # a directory, hub id, .gguf, or a finished posttrain's model/
  data: DataConfig
  lora: LoraConfig | None = None  # None: all weights are trained
  steps: int | None = None  # None: as many as `epochs` take
  epochs: float = 1.0
  batch_size: int = 8  # examples
  learning_rate: float = 1e-4  # the peak; it falls linearly to 0 at the end
  warmup_steps: int = 0
  weight_decay: float = 0.0
  grad_clip: float = 1.0  # largest global norm of a gradient; 0: no limit
  seed: int = 0
  dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of products and result
  remat: bool = False  # less memory for a third more work
  eval: EvalConfig | None = None
  series_every: int = 0  # steps between models in series/; 0: none are kept
  checkpoint_every: int = 200
  log_every: int = 1
  mesh: mesh_lib.MeshConfig = dataclasses.field(
    default_factory=mesh_lib.MeshConfig
  )

  def __post_init__(self):
    if not self.model:
      raise errors.InputError("model is empty; give a directory or hub id")
    recipe = self.sft  # checks the fields that the two share
    _at_least(self, 0, "series_every")
    if self.eval is not None and self.eval.every % recipe.log_every:
      raise errors.InputError(
        f"eval.every={self.eval.every} is not a multiple of"
        f" log_every={self.log_every}; margins are logged with the step's own"
        " metrics"
      )

  @property
  def sft(self) -> SftConfig:
    shared = {field.name for field in dataclasses.fields(SftConfig)}
    return SftConfig(
      **{
        field.name: getattr(self, field.name)
        for field in dataclasses.fields(self)
        if field.name in shared
      }
    )


# What a resumed run may change: it does not enter the numbers. (On another mesh
# they differ by float reassociation.)
MAY_CHANGE = ("mesh", "checkpoint_every", "log_every")


def _at_least(config, least: int, *names: str) -> None:
  for name in names:
    if getattr(config, name) < least:
      raise errors.InputError(
        f"{name}={getattr(config, name)}: give a number >= {least}"
      )
