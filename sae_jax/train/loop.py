# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The training run: a store in; checkpoints, metrics and `sae/` out.

The order inside the loop is what makes a resumed run equal an uninterrupted
one: look at the old state, save it, only then take the next batch and step.
Nothing in the loop waits for the step that it has just started.
"""

import pathlib

import jax

from sae_jax import (
  checkpoint,
  errors,
  formats,
  interrupt,
  store,
  stream,
)
from sae_jax import mesh as mesh_lib
from sae_jax.train import config as config_lib
from sae_jax.train import held_out, optimizer, provenance, start
from sae_jax.train import run as run_lib
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
  hook = source.hook(config.hook)
  d_model = source.d_model(hook)
  train_chunks, held_out_chunks = source.holdout(config.held_out_rows)
  start.check(config, source, train_chunks)
  metadata = provenance.metadata(config, source, hook)
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
  run = run_lib.Run(
    config,
    source,
    directory,
    checkpoints,
    batches,
    first=first,
    d_model=d_model,
    mesh=mesh,
  )
  try:
    alone = jax.process_count() == 1
    with interrupt.catch(alone=alone) as stop, jax.transfer_guard("disallow"):
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
  _export(config, state, metadata, directory / "sae")
  return result


def _export(config, state, metadata, directory) -> None:
  """Writes the dictionary, block by block; the first process writes."""
  dictionary = state_lib.to_sae(state, config.sae, metadata)
  formats.save_sae(dictionary, str(directory))
