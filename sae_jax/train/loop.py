# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The training run: a store in; checkpoints, metrics and `sae/` out.

The order inside the loop is what makes a resumed run equal an uninterrupted
one: look at the old state, save it, only then take the next batch and step.
Nothing in the loop waits for the step that it has just started.
"""

import pathlib
import time
from typing import Any

import jax
from jax.experimental import multihost_utils

from sae_jax import (
  checkpoint,
  errors,
  formats,
  interrupt,
  metrics,
  store,
  stream,
)
from sae_jax import mesh as mesh_lib
from sae_jax.train import config as config_lib
from sae_jax.train import held_out, optimizer, provenance, start
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib


def train(
  config: config_lib.TrainConfig, source: store.Store, directory: pathlib.Path
) -> dict[str, float]:
  """Trains to `config.steps`, from the newest checkpoint if there is one.

  Writes `checkpoints/`, `metrics.jsonl`, `tensorboard/` and, at the end, `sae/`
  in SAELens's layout. Returns the last metrics.

  Raises:
    errors.InputError: config, store and mesh do not fit together.
    errors.Interrupted: SIGTERM or SIGINT; a checkpoint was saved.
    metrics.NonFiniteError: the loss; nothing after it was saved.
  """
  mesh = mesh_lib.make(config.mesh)
  hook = start.find_hook(source, config.hook)
  d_model = source.d_model(hook)
  train_chunks, held_out_chunks = source.holdout(config.held_out_rows)
  start.check(config, source, train_chunks)
  adam = optimizer.make_optimizer(
    config.optimizer, latents=config.sae.latents, steps=config.steps
  )
  train_step = step_lib.make_train_step(
    config.sae, config.optimizer, mesh, d_model=d_model, steps=config.steps
  )
  checkpoints = checkpoint.Checkpoints(
    directory / "checkpoints", keep=config.keep_checkpoints
  )
  state, position = checkpoints.restore_latest(
    state_lib.abstract_state(config.sae, adam, d_model, mesh)
  ) or (start.new_state(config, source, hook, train_chunks, adam, mesh), None)
  first = int(state.step)
  batches = stream.open_stream(
    source,
    hook,
    config.stream,
    mesh=mesh,
    chunks=train_chunks,
    start_state=position,
  )
  look = held_out.make_look(config, source, hook, held_out_chunks, mesh)
  run = _Run(config, source, directory, checkpoints, batches, first)
  try:
    with interrupt.catch() as stop, jax.transfer_guard("disallow"):
      for step in range(first, config.steps):
        looked = look(state) if step % config.eval_every == 0 else {}
        if stop.requested:
          run.save(step, state)
          raise errors.Interrupted(
            f"{stop.requested} at step {step} of {config.steps}; a checkpoint"
            " was saved: run the same command again to go on"
          )
        if step % config.checkpoint_every == 0 and step > first:
          run.save(step, state)
        x_BD = next(batches)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
          state, scalars = train_step(state, x_BD)
        run.log(step, scalars | looked)
    run.save(config.steps, state)
    result = run.last_metrics(look(state))
    checkpoints.wait()
  finally:
    run.close()
  _export(config, source, hook, state, directory / "sae")
  return result


def _export(config, source, hook, state, directory) -> None:
  """Writes the dictionary; the first process gathers it in host memory."""
  dictionary = state_lib.to_sae(
    state, config.sae, provenance.metadata(config, source, hook)
  )
  if jax.process_count() > 1:
    dictionary = multihost_utils.process_allgather(dictionary, tiled=True)
  if jax.process_index() == 0:
    formats.save_sae(dictionary, str(directory))


class _Run:
  """What the loop leaves behind: metrics, checkpoints, released chunks."""

  def __init__(self, config, source, directory, checkpoints, batches, first):
    self._config = config
    self._source = source
    self._directory = directory
    self._checkpoints = checkpoints
    self._batches = batches
    lead = jax.process_index() == 0
    self._writer = (
      metrics.Writer(directory, first, config.wandb_project) if lead else None
    )
    self._late = metrics.OneStepLate(
      self._writer, config.log_every, watch="train/loss"
    )
    self._progress = metrics.Progress(
      config.steps, "steps", initial=first, show=lead
    )
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
    self._checked(self._late, step, scalars, rates)
    last = self._late.last
    note = f"fvu {last['train/fvu']:.4f}" if last else ""
    self._progress.update(step + 1, note)

  def save(self, step: int, state: state_lib.TrainState) -> None:
    """Saves a state whose loss is known to be finite."""
    self._checked(self._late.flush)
    position = self._batches.state()
    self._checkpoints.save(step, state, position)
    if self._source.bounded:
      # Only what a checkpoint on disk no longer needs may be deleted.
      self._checkpoints.wait()
      self._source.release(self._batches.releasable_chunk(position))

  def last_metrics(self, looked: dict[str, jax.Array]) -> dict[str, float]:
    final = {name: float(v) for name, v in jax.device_get(looked).items()}
    if self._writer is not None and final:
      self._writer.write(self._config.steps, final)
    return self._late.last | final

  def close(self) -> None:
    self._progress.close()
    self._batches.close()
    self._checkpoints.close()
    if self._writer is not None:
      self._writer.close()

  def _checked(self, call: Any, *args: Any) -> None:
    try:
      call(*args)
    except metrics.NonFiniteError as error:
      self._checkpoints.wait()
      kept = self._checkpoints.steps()
      raise metrics.NonFiniteError(
        f"{error}; the run was stopped. Last good checkpoint:"
        f" {kept[-1] if kept else 'none'} in {self._directory}/checkpoints."
        " Check the store with `sae-jax verify`, or start a run with a lower"
        " optimizer.learning_rate"
      ) from None
