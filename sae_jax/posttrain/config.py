# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuning run is, as numbers."""

import dataclasses
import math

from sae_jax import errors


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


def _at_least(config, least: int, *names: str) -> None:
  for name in names:
    if getattr(config, name) < least:
      raise errors.InputError(
        f"{name}={getattr(config, name)}: give a number >= {least}"
      )
