# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the loop runs on its state: one dictionary's, or a sweep's."""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, formats, store
from sae_jax.train import config as config_lib
from sae_jax.train import held_out, optimizer, provenance, stack, stacked, start
from sae_jax.train import records as records_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """The parts of a run that depend on how many dictionaries it trains."""

  hooks: str | tuple[str, ...]  # that a batch is of
  flops: int  # of a step's dense encoder products, which have to be dense
  abstract_state: state_lib.TrainState  # to restore a checkpoint
  new_state: Callable[[], state_lib.TrainState]
  train_step: step_lib.TrainStep
  look: Callable[[state_lib.TrainState], dict[str, jax.Array]]  # held-out rows
  # (directory, first step, state) -> where the metrics go
  records: Callable[
    [pathlib.Path, int, state_lib.TrainState], records_lib.Records
  ]
  export: Callable[[state_lib.TrainState, pathlib.Path], None]


def one(
  config: config_lib.TrainConfig,
  source: store.Store,
  mesh: jax.sharding.Mesh,
  chunks: range,
  held_out_chunks: range,
) -> Program:
  """Of one dictionary; its export is `sae/`.

  Raises:
    errors.InputError: config, store and mesh do not fit together.
  """
  hook = source.hook(config.hook)
  d_model = source.d_model(hook)
  metadata = provenance.metadata(config, source, hook)
  adam = _adam(config)
  rows_NBD = held_out.rows(config, source, hook, held_out_chunks, mesh)
  look = held_out.make_look(config.sae, rows_NBD, mesh)

  def new_state():
    seeds = [config.seed]
    states = start.new_states(config, source, hook, chunks, adam, mesh, seeds)
    return next(states)

  def export(state, directory):
    dictionary = state_lib.to_sae(state, config.sae, metadata)
    formats.save_sae(dictionary, str(directory / "sae"))

  return Program(
    hooks=hook,
    flops=_flops(config, d_model),
    abstract_state=state_lib.abstract_state(config.sae, adam, d_model, mesh),
    new_state=new_state,
    train_step=step_lib.make_train_step(
      config.sae, config.optimizer, mesh, d_model=d_model, steps=config.steps
    ),
    look=lambda state: look(state_lib.trained(state)),
    records=lambda directory, first, _: records_lib.One(
      config, directory, first
    ),
    export=export,
  )


def sweep(
  config: config_lib.TrainConfig,
  source: store.Store,
  mesh: jax.sharding.Mesh,
  chunks: range,
  held_out_chunks: range,
) -> Program:
  """Of the dictionaries of a sweep; their exports are `sae/I/`.

  Raises:
    errors.InputError: config, store and mesh do not fit together.
  """
  members = [
    dataclasses.replace(member, hook=source.hook(member.hook))
    for member in config_lib.members(config)
  ]
  hooks = tuple(dict.fromkeys(member.hook for member in members))
  d_model = _width(source, hooks)
  metadata = provenance.metadata(config, source, hooks[0])
  adam = _adam(config)

  def new_state():
    ahead = {}
    for hook in hooks:
      seeds = [member.seed for member in members if member.hook == hook]
      ahead[hook] = start.new_states(
        config, source, hook, chunks, adam, mesh, seeds
      )
    states = (next(ahead[member.hook]) for member in members)
    return stack.stack_states(states, len(members))

  def export(state_S, directory):
    for i, member in enumerate(members):
      dictionary = state_lib.dictionary(
        stack.member(state_lib.trained(state_S), i),
        member.sae,
        metadata | {"hook_name": member.hook},
      )
      try:
        formats.save_sae(dictionary, str(directory / "sae" / str(i)))
      except errors.InputError as error:  # it diverged to infinity at once
        print(f"dictionary {i} is not exported: {error}", file=sys.stderr)

  def records(directory, first, state_S):
    replicated = jax.NamedSharding(mesh, jax.P())
    steps_S = jax.jit(jnp.copy, out_shardings=replicated)(state_S.step)
    return records_lib.Sweep(
      config, members, directory, first, np.asarray(steps_S)
    )

  return Program(
    hooks=hooks if len(hooks) > 1 else hooks[0],
    flops=_flops(config, d_model) * len(members),
    abstract_state=stack.abstract_state(
      config.sae, adam, d_model, mesh, len(members)
    ),
    new_state=new_state,
    train_step=stacked.make_stacked_step(
      [member.sae for member in members],
      [member.optimizer for member in members],
      mesh,
      d_model=d_model,
      steps=config.steps,
      hooks=[hooks.index(member.hook) for member in members],
    ),
    look=_look_at_all(config, members, source, held_out_chunks, mesh),
    records=records,
    export=export,
  )


def _look_at_all(
  config, members, source, chunks, mesh
) -> Callable[[state_lib.TrainState], dict[str, jax.Array]]:
  """`look(state_S)`: what every member's own look says, [S]."""
  rows = functools.cache(
    lambda hook: held_out.rows(config, source, hook, chunks, mesh)
  )
  # Members that differ in what a look does not see share its program.
  look_at = functools.cache(
    lambda hook, k: held_out.make_look(
      dataclasses.replace(config.sae, k=k), rows(hook), mesh
    )
  )
  looks = [look_at(member.hook, member.sae.k) for member in members]

  @functools.partial(jax.jit, out_shardings=jax.NamedSharding(mesh, jax.P()))
  def together(found):
    return jax.tree.map(lambda *scalars: jnp.stack(scalars), *found)

  def look(state_S):
    part_S = state_lib.trained(state_S)
    return together(
      [look(stack.member(part_S, i)) for i, look in enumerate(looks)]
    )

  return look


def _adam(config: config_lib.TrainConfig) -> Any:
  return optimizer.make_optimizer(
    config.optimizer, latents=config.sae.latents, steps=config.steps
  )


def _flops(config: config_lib.TrainConfig, d_model: int) -> int:
  return 2 * config.stream.batch_size * config.sae.latents * d_model


def _width(source: store.Store, hooks: tuple[str, ...]) -> int:
  widths = {hook: source.d_model(hook) for hook in hooks}
  if len(set(widths.values())) > 1:
    held = ", ".join(f"{hook} is {d} wide" for hook, d in widths.items())
    raise errors.InputError(
      f"sweep: {held}; dictionaries that are trained in one step have one"
      " shape: give hooks of one width, and sweep the others in another run"
    )
  return widths[hooks[0]]
