# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of a loaded language model.

Examples and a model in, a new model out; with a directory also checkpoints and
metrics.jsonl, from which a run that was killed goes on to the same bits.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from sae_jax import artifacts, checkpoint, errors, interrupt, lm, metrics
from sae_jax.posttrain import config as config_lib
from sae_jax.posttrain import data
from sae_jax.posttrain import step as step_lib

OnStep = Callable[[int, dict[str, jax.Array]], None]


def finetune(
  model: lm.LanguageModel,
  examples: Sequence[data.Example],
  config: config_lib.SftConfig,
  *,
  directory: pathlib.Path | None = None,
  on_step: OnStep | None = None,
) -> lm.LanguageModel:
  """Fine-tunes all weights of a model; `model` itself stays as it is.

  Args:
    model: loaded whole; its dtype is that of the products and of the result,
      its mesh the one that is trained on.
    examples: in memory.
    config: the recipe.
    directory: where `checkpoints/` and `metrics.jsonl` go; None: nowhere, and
      the run cannot be resumed.
    on_step: called with the number of every finished step and its scalars,
      which are still on the device; reading them waits for the step.

  Raises:
    errors.InputError: examples or model cannot be used, or the directory holds
      another run.
    errors.Interrupted: SIGTERM or SIGINT, where a checkpoint was saved.
    metrics.NonFiniteError: the loss; nothing after it was saved.
  """
  if not model.model.has_head:
    raise errors.InputError(
      f"{model.source}: only {model.layers} layers are loaded; load the model"
      " without layers= to fine-tune it"
    )
  data.check(model, examples)
  identity = run_identity(model, examples, config)
  recipe = step_lib.recipe(model, config)
  state = _train(model, examples, config, recipe, identity, directory, on_step)
  decoder = jax.jit(
    lambda decoder, params: step_lib.assemble(recipe, decoder, params)
  )(model.model, state.params)
  return dataclasses.replace(
    model,
    model=decoder,
    source=f"{model.source} (fine-tuned)",
    weights_hash=identity,
  )


def run_identity(
  model: lm.LanguageModel,
  examples: Sequence[data.Example],
  config: config_lib.SftConfig,
) -> str:
  """A hex digest of everything that the result depends on."""
  recipe = dataclasses.asdict(config)
  for name in ("checkpoint_every", "log_every"):
    del recipe[name]
  return artifacts.hash_json(
    {
      "weights": model.weights_hash,
      "dtype": str(model.dtype),
      "config": recipe,
      "examples": [
        [list(map(int, e.tokens)), list(map(int, e.loss_mask))]
        for e in examples
      ],
    }
  )


def _train(
  model, examples, config, recipe, identity, directory, on_step
) -> step_lib.SftState:
  steps = config.num_steps(len(examples))
  train_step = step_lib.make_train_step(recipe)
  run = _Run(config, steps, identity, directory)
  state = run.restore(recipe) or step_lib.new_state(recipe, model.model)
  first = int(state.step)
  run.start(first)
  replicated = jax.NamedSharding(model.mesh, jax.P())
  limit = model.config.learned_positions
  try:
    # A run that cannot be resumed leaves signals as they are.
    alone = jax.process_count() == 1 and directory is not None
    with interrupt.catch(alone=alone) as stop:
      for step in range(first, steps):
        if stop.requested:
          run.save(step, state)
          raise errors.Interrupted(
            f"{stop.requested} at step {step} of {steps}; a checkpoint was"
            " saved: run the same command again to go on"
          )
        if step % config.checkpoint_every == 0 and step > first:
          run.save(step, state)
        chosen = data.order(len(examples), config.batch_size, config.seed, step)
        batch = data.batch([examples[i] for i in chosen], model.mesh, limit)
        rate = step_lib.learning_rate(config, steps, step)
        state, scalars = train_step(
          state,
          model.model,
          batch,
          jax.device_put(np.float32(rate), replicated),
        )
        run.log(step, scalars, {"train/lr": rate})
        if on_step is not None:
          on_step(step, scalars)
    run.save(steps, state)
  finally:
    run.close()
  return state


class _Run:
  """The files of one run, if it has any."""

  def __init__(
    self,
    config: config_lib.SftConfig,
    steps: int,
    identity: str,
    directory: pathlib.Path | None,
  ):
    self._config = config
    self._steps = steps
    self._identity = identity
    self._directory = directory
    self._writer: metrics.Writer | None = None
    self._checkpoints: checkpoint.Checkpoints | None = None
    if directory is not None:
      directory.mkdir(parents=True, exist_ok=True)
      self._checkpoints = checkpoint.Checkpoints(directory / "checkpoints")

  def restore(self, recipe: step_lib.Recipe) -> step_lib.SftState | None:
    if self._checkpoints is None:
      return None
    found = self._checkpoints.restore_latest(step_lib.abstract_state(recipe))
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
    lead = jax.process_index() == 0
    if self._directory is not None and lead:
      self._writer = metrics.Writer(self._directory, first)
    self._late = metrics.OneStepLate(
      self._writer, self._config.log_every, watch="train/loss"
    )
    self._progress = metrics.Progress(
      self._steps,
      "steps",
      initial=first,
      show=lead and self._directory is not None,
    )

  def log(
    self, step: int, scalars: dict[str, jax.Array], extra: dict[str, float]
  ) -> None:
    self._late(step, scalars, extra)
    last = self._late.last
    note = f"loss {last['train/loss']:.4f}" if last else ""
    self._progress.update(step + 1, note)

  def save(self, step: int, state: Any) -> None:
    """Saves a state whose loss is known to be finite."""
    self._late.flush()
    if self._checkpoints is not None:
      self._checkpoints.save(step, state, {"run": self._identity})

  def close(self) -> None:
    self._progress.close()
    if self._checkpoints is not None:
      self._checkpoints.close()
    if self._writer is not None:
      self._writer.close()
