# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The files of a fine-tuning run: checkpoints and metrics, if it has any.

Nothing is saved before its loss is known to be finite.
"""

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from sae_jax import checkpoint, errors, metrics
from sae_jax.posttrain import config as config_lib
from sae_jax.posttrain import step as step_lib


class Run:
  """One run under way; without a directory it writes nothing."""

  def __init__(
    self,
    config: config_lib.SftConfig,
    steps: int,
    identity: str,
    directory: pathlib.Path | None,
  ):
    self._steps = steps
    self._identity = identity
    self._directory = directory
    self._writer: metrics.Writer | None = None
    self._progress: metrics.Progress | None = None
    self._checkpoints: checkpoint.Checkpoints | None = None
    self._late = metrics.OneStepLate(None, config.log_every, watch="train/loss")
    self._every = config.log_every
    self._then = time.perf_counter()
    if directory is not None:
      directory.mkdir(parents=True, exist_ok=True)
      self._checkpoints = checkpoint.Checkpoints(directory / "checkpoints")

  def restore(self, abstract: step_lib.SftState) -> step_lib.SftState | None:
    """The newest state, or None.

    Raises:
      errors.InputError: the checkpoints are those of another run.
    """
    if self._checkpoints is None:
      return None
    found = self._checkpoints.restore_latest(abstract)
    if found is None:
      return None
    state, position = found
    if position != {"run": self._identity}:
      raise errors.InputError(
        f"{self._directory} holds checkpoints of another run (other weights,"
        " examples or config); remove it or choose another directory"
      )
    return state

  def start(self, first: int) -> None:
    """Opens the metrics at step `first`."""
    lead = jax.process_index() == 0
    if self._directory is None:
      return
    if lead:
      self._writer = metrics.Writer(self._directory, first)
    self._late = metrics.OneStepLate(
      self._writer, self._every, watch="train/loss"
    )
    self._progress = metrics.Progress(
      self._steps, "steps", initial=first, show=lead
    )
    self._then = time.perf_counter()

  def log(
    self,
    step: int,
    scalars: Mapping[str, jax.Array],
    tokens: int,
    extra: dict[str, float],
  ) -> None:
    """Hands step `step` in and reports the one before it."""
    now = time.perf_counter()
    seconds, self._then = now - self._then, now
    rates = {
      "perf/step_ms": 1e3 * seconds,
      "perf/tokens_per_s": tokens / seconds,
    }
    self._checked(self._late, step, scalars, rates | extra)
    last = self._late.last
    if self._progress is not None:
      note = f"loss {last['train/loss']:.4f}" if last else ""
      self._progress.update(step + 1, note)

  def settle(self) -> None:
    """Reports the step that was handed in last; waits for it."""
    self._checked(self._late.flush)

  def save(self, step: int, state: step_lib.SftState) -> None:
    """Saves a state whose loss is known to be finite."""
    self.settle()
    if self._checkpoints is not None:
      self._checkpoints.save(step, state, {"run": self._identity})

  def last_metrics(self, looked: dict[str, float]) -> dict[str, float]:
    """The last step's metrics and a look at the final state."""
    last = self._late.last
    if not last and self._directory is not None:  # resumed after the last step
      lines = metrics.read(self._directory / "metrics.jsonl")
      last = next((x for x in reversed(lines) if "train/loss" in x), {})
    if self._writer is not None and looked:
      self._writer.write(self._steps, looked)
    return {k: v for k, v in last.items() if k != "step"} | looked

  def close(self) -> None:
    if self._progress is not None:
      self._progress.close()
    if self._checkpoints is not None:
      self._checkpoints.close()
    if self._writer is not None:
      self._writer.close()

  def _checked(self, call: Callable[..., None], *args: Any) -> None:
    try:
      call(*args)
    except metrics.NonFiniteError as error:
      raise metrics.NonFiniteError(
        f"{error}; the run was stopped and nothing after it was saved. Start"
        " one with a lower learning_rate, or look for NaN in the model's"
        " weights"
      ) from None
