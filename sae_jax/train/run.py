# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the loop leaves behind: metrics, checkpoints, released chunks.

Nothing is saved before its loss is known to be finite, nothing is released
before a checkpoint on disk no longer needs it.
"""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax

from sae_jax import checkpoint, metrics, store, stream
from sae_jax import mesh as mesh_lib
from sae_jax.train import config as config_lib
from sae_jax.train import records as records_lib
from sae_jax.train import state as state_lib


class Run:
  """The files of one run while it is under way."""

  def __init__(
    self,
    config: config_lib.TrainConfig,
    source: store.Store,
    directory: pathlib.Path,
    checkpoints: checkpoint.Checkpoints,
    batches: stream.Stream,
    records: records_lib.Records,
    *,
    flops: int,
    mesh: jax.sharding.Mesh,
  ):
    """`flops`: of a step, in its dense products."""
    self._config = config
    self._source = source
    self._directory = directory
    self._checkpoints = checkpoints
    self._batches = batches
    self._records = records
    self._progress = metrics.Progress(
      config.steps,
      "steps",
      initial=batches.batches,
      show=jax.process_index() == 0,
    )
    self._flops = flops
    peak = mesh_lib.peak_flops(mesh.devices.flat[0].device_kind)
    self._peak = peak * mesh.devices.size if peak else None
    self._then = time.perf_counter()

  def log(self, step: int, scalars: dict[str, jax.Array]) -> None:
    """Hands step `step` in and reports the one before it."""
    now = time.perf_counter()
    seconds, self._then = now - self._then, now
    rows = self._config.stream.batch_size
    rates = {
      "perf/step_ms": 1e3 * seconds,
      "perf/tokens_per_s": rows / seconds,
      "perf/stall_ms": self._batches.stall_ms(),
    }
    if self._peak:
      rates["perf/mfu"] = self._flops / (seconds * self._peak)
    self._checked(self._records.log, step, scalars, rates)
    self._progress.update(step + 1, self._records.note())

  def save(self, step: int, state: state_lib.TrainState) -> None:
    """Saves a state whose loss is known to be finite."""
    self._checked(self._records.flush)
    position = self._batches.state()
    release = None
    if self._source.bounded:
      # Only what a checkpoint on disk no longer needs may be deleted.
      first_chunk = self._batches.releasable_chunk(position)
      release = functools.partial(self._source.release, first_chunk)
    self._checkpoints.save(step, state, position, saved=release)

  def result(self, looked: dict[str, jax.Array]) -> dict[str, Any]:
    """The last step's metrics and a look at the final state."""
    return self._records.result(looked)

  def close(self) -> None:
    self._progress.close()
    self._batches.close()
    self._checkpoints.close()
    self._records.close()

  def _checked(self, call: Callable[..., None], *args: Any) -> None:
    try:
      call(*args)
    except metrics.NonFiniteError as error:
      self._checkpoints.wait()
      kept = self._checkpoints.steps()
      place = self._config.checkpoints or self._directory / "checkpoints"
      raise metrics.NonFiniteError(
        f"{error}; the run was stopped. Last good checkpoint:"
        f" {kept[-1] if kept else 'none'} in {place}."
        " Check the store with `sae-jax verify`, or start a run with a lower"
        " optimizer.learning_rate"
      ) from None
