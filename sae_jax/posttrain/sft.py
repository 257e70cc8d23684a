# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of a loaded language model.

Examples and a model in, a new model out; with a directory also checkpoints and
metrics.jsonl, from which a run that was killed goes on to the same bits.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sae_jax import artifacts, errors, interrupt, lm
from sae_jax.lm import low_rank
from sae_jax.posttrain import config as config_lib
from sae_jax.posttrain import data
from sae_jax.posttrain import run as run_lib
from sae_jax.posttrain import step as step_lib

OnStep = Callable[[int, dict[str, jax.Array]], None]


@dataclasses.dataclass(frozen=True)
class Tuned:
  """What a run made: `adapter` where it trained one, and the whole model."""

  model: lm.LanguageModel
  adapter: low_rank.Adapter | None
  metrics: dict[str, float]  # of the last step and its looks


@dataclasses.dataclass(frozen=True)
class Look:
  """What is done with the model every so many steps, and at the end.

  `at(step, tuned)` is called with the steps done (0 before the first one); what
  it returns is logged with the metrics of the step that comes next.
  """

  every: int  # a multiple of the recipe's log_every, if it returns anything
  at: Callable[[int, Tuned], dict[str, float]]


def finetune(
  model: lm.LanguageModel,
  examples: Sequence[data.Example],
  config: config_lib.SftConfig,
  *,
  directory: pathlib.Path | None = None,
  on_step: OnStep | None = None,
) -> lm.LanguageModel:
  """Fine-tunes a model; `model` itself stays as it is.

  Args:
    model: loaded whole; its dtype is that of the products and of the result,
      its mesh the one that is trained on.
    examples: in memory.
    config: the recipe; with `lora` an adapter is trained and merged.
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
  return train(
    model, examples, config, directory=directory, on_step=on_step
  ).model


def train(
  model: lm.LanguageModel,
  examples: Sequence[data.Example],
  config: config_lib.SftConfig,
  *,
  directory: pathlib.Path | None = None,
  on_step: OnStep | None = None,
  looks: Sequence[Look] = (),
) -> Tuned:
  """`finetune`, which also looks at the model and returns its adapter.

  Args:
    looks: taken in order, only at states whose loss was finite. A run that is
      resumed takes those of its first step again.

  Raises:
    See `finetune`.
  """
  if not model.model.has_head:
    raise errors.InputError(
      f"{model.source}: only {model.layers} layers are loaded; load the model"
      " without layers= to fine-tune it"
    )
  data.check(model, examples)
  identity = run_identity(model, examples, config)
  recipe = step_lib.recipe(model, config)
  finished = step_lib.make_finished(recipe)
  steps = config.num_steps(len(examples))
  train_step = step_lib.make_train_step(recipe)
  run = run_lib.Run(config, steps, identity, directory)

  def current(state):
    whole = dataclasses.replace(
      model,
      model=finished(model.model, state.params),
      source=f"{model.source} (fine-tuned)",
      weights_hash=identity,
    )
    _, adapter = step_lib.assemble(recipe, model.model, state.params)
    return Tuned(whole, adapter, {})

  try:
    state = run.restore(step_lib.abstract_state(recipe))
    if state is None:
      state = step_lib.new_state(recipe, model.model, config.seed)
    first = int(state.step)
    run.start(first)
    # A run that cannot be resumed leaves signals as they are.
    with interrupt.catch(resumable=directory is not None) as stop:
      for step in range(first, steps):
        due = [look for look in looks if step % look.every == 0]
        looked = {}
        if due:
          run.settle()
          looked = _look(due, step, current(state))
        if signal := stop.due(step):
          run.save(step, state)
          raise errors.Interrupted(
            f"{signal} at step {step} of {steps}; a checkpoint was"
            " saved: run the same command again to go on"
          )
        if step % config.checkpoint_every == 0 and step > first:
          run.save(step, state)
        batch, tokens = _next_batch(model, examples, config, step)
        rate = step_lib.learning_rate(config, steps, step)
        with jax.profiler.StepTraceAnnotation("posttrain", step_num=step):
          state, scalars = train_step(
            state, model.model, batch, _on_mesh(rate, model.mesh)
          )
        run.log(step, scalars, tokens, {"train/lr": rate} | looked)
        if on_step is not None:
          on_step(step, scalars)
    run.save(steps, state)
    result = current(state)
    last = run.last_metrics(_look(looks, steps, result))
  finally:
    run.close()
  return dataclasses.replace(result, metrics=last)


def _look(looks: Sequence[Look], step: int, tuned: Tuned) -> dict[str, float]:
  found = {}
  for look in looks:
    found |= look.at(step, tuned)
  return found


def _next_batch(model, examples, config, step) -> tuple[data.Batch, int]:
  """The batch of a step, and how many tokens there are in it."""
  numbers = data.order(len(examples), config.batch_size, config.seed, step)
  chosen = [examples[i] for i in numbers]
  limit = model.config.learned_positions
  tokens = sum(len(example.tokens) for example in chosen)
  return data.batch(chosen, model.mesh, limit), tokens


def _on_mesh(value: float, mesh: jax.sharding.Mesh) -> jax.Array:
  return jax.device_put(np.float32(value), jax.NamedSharding(mesh, jax.P()))


def run_identity(
  model: lm.LanguageModel,
  examples: Sequence[data.Example],
  config: config_lib.SftConfig,
) -> str:
  """A hex digest of everything that the result depends on."""
  files = ("checkpoint_every", "log_every")
  recipe = {
    name: value
    for name, value in dataclasses.asdict(config).items()
    if name not in files
  }
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
