# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The training run: a store in; checkpoints, metrics and `sae/` out.

The order inside the loop is what makes a resumed run equal an uninterrupted
one: look at the old state, save it, only then take the next batch and step.
Nothing in the loop waits for the step that it has just started.
"""

import pathlib
from typing import Any

import jax

from sae_jax import (
  checkpoint,
  errors,
  interrupt,
  store,
  stream,
)
from sae_jax import mesh as mesh_lib
from sae_jax.train import config as config_lib
from sae_jax.train import program as program_lib
from sae_jax.train import run as run_lib
from sae_jax.train import start


def train(
  config: config_lib.TrainConfig, source: store.Store, directory: pathlib.Path
) -> dict[str, Any]:
  """Trains to `config.steps`, from the newest checkpoint if there is one.

  Writes `checkpoints/`, `metrics.jsonl`, `tensorboard/` and, at the end, `sae/`
  in SAELens's layout; of a sweep `sae/I/` and `members/I/`, see `records`.
  Returns the last metrics, of a sweep with `members`, a list of each one's.

  Raises:
    errors.InputError: config, store and mesh do not fit together.
    errors.Interrupted: SIGTERM or SIGINT; a checkpoint was saved.
    metrics.NonFiniteError: the loss, of a sweep every loss; nothing after it
      was saved.
  """
  config = start.resolved(config, source)
  mesh = mesh_lib.make(config.mesh)
  chunks, held_out_chunks = source.holdout(config.held_out_rows)
  start.check(config, source, chunks)
  make = program_lib.sweep if config.sweep else program_lib.one
  program = make(config, source, mesh, chunks, held_out_chunks)
  checkpoints = checkpoint.Checkpoints(
    config.checkpoints or directory / "checkpoints",
    keep=config.keep_checkpoints,
    keep_every=config.keep_every,
    run=start.identity(config, source),
  )
  state, position = checkpoints.restore_latest(program.abstract_state) or (
    program.new_state(),
    None,
  )
  batches = stream.open_stream(
    source,
    program.hooks,
    config.stream,
    mesh=mesh,
    chunks=chunks,
    start_state=position,
  )
  first = batches.batches  # a step takes one
  run = run_lib.Run(
    config,
    source,
    directory,
    checkpoints,
    batches,
    program.records(directory, first, state),
    flops=program.flops,
    mesh=mesh,
  )
  try:
    with interrupt.catch() as stop, jax.transfer_guard("disallow"):
      for step in range(first, config.steps):
        looked = program.look(state) if step % config.eval_every == 0 else {}
        if signal := stop.due(step):
          run.save(step, state)
          raise errors.Interrupted(
            f"{signal} at step {step} of {config.steps}; a checkpoint"
            " was saved: run the same command again to go on"
          )
        if step % config.checkpoint_every == 0 and step > first:
          run.save(step, state)
        batch = next(batches)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
          state, scalars = program.train_step(state, batch)
        run.log(step, scalars | looked)
    run.save(config.steps, state)
    result = run.result(program.look(state))
    checkpoints.wait()
  finally:
    run.close()
  program.export(state, directory)
  return result
