# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What quality.py asks of every library, and what it gets."""

import dataclasses
from typing import Protocol

import jax
import numpy as np

from sae_jax import sae


@dataclasses.dataclass(frozen=True)
class Task:
  """What every learner is asked for."""

  d_model: int
  latents: int
  k: int
  batch: int
  steps: int
  seed: int
  activation: str = "topk"  # or "batch_topk"
  rate: float | None = None  # the peak; None: the library's own schedule
  warmup: int = 0  # steps, with a given rate; then the last fifth decays


@dataclasses.dataclass(frozen=True)
class Data:
  """What is known of the rows before the first step."""

  sample_ND: np.ndarray  # float32
  mean_square_norm: float
  total_variance: float


class Learner(Protocol):
  """One dictionary in training."""

  def step(self, x_BD: jax.Array) -> None:
    """Takes bfloat16 rows; returns when the step's results are there."""

  def dictionary(self) -> sae.Sae:
    """What the library would save now."""

  def reconstruct(self, x_BD: np.ndarray) -> np.ndarray:
    """The library's own forward pass, as it evaluates, float32."""
