# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What the loop runs on its state: one dictionary's, or a sweep's."""

import dataclasses
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Sequence
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
  config = _named(config, source)
  hooks = (config.hook, config.target) if config.target else config.hook
  widths = _widths(source, [config])
  metadata = provenance.metadata(config, source)
  adam = _adam(config)
  look = _look(config, source, held_out_chunks, mesh)

  def new_state():
    states = start.new_states(
      config,
      source,
      config.hook,
      chunks,
      adam,
      mesh,
      [config.seed],
      config.target,
    )
    return next(states)

  def export(state, directory):
    dictionary = state_lib.to_sae(state, config.sae, metadata)
    formats.save_sae(dictionary, str(directory / "sae"))

  return Program(
    hooks=hooks,
    flops=_flops(config, widths["d_model"]),
    abstract_state=state_lib.abstract_state(
      config.sae,
      adam,
      mesh=mesh,
      normalization=config.normalize,
      **widths,
    ),
    new_state=new_state,
    train_step=step_lib.make_train_step(
      config.sae, config.optimizer, mesh, steps=config.steps, **widths
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
  members = [_named(member, source) for member in config_lib.members(config)]
  sites = [(member.hook, member.target) for member in members]
  named = itertools.chain.from_iterable(zip(*sites, strict=True))
  hooks = tuple(dict.fromkeys(hook for hook in named if hook))
  widths = _widths(source, members)
  metadata = provenance.metadata(members[0], source)
  adam = _adam(config)

  def new_state():
    ahead = {}
    for hook, target in dict.fromkeys(sites):
      seeds = [
        member.seed
        for member, site in zip(members, sites, strict=True)
        if site == (hook, target)
      ]
      ahead[hook, target] = start.new_states(
        config, source, hook, chunks, adam, mesh, seeds, target
      )
    states = (next(ahead[site]) for site in sites)
    return stack.stack_states(states, len(members))

  def export(state_S, directory):
    for i, member in enumerate(members):
      dictionary = state_lib.dictionary(
        stack.member(state_lib.trained(state_S), i),
        member.sae,
        metadata | provenance.of_member(member),
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
    flops=_flops(config, widths["d_model"]) * len(members),
    abstract_state=stack.abstract_state(
      config.sae,
      adam,
      mesh=mesh,
      count=len(members),
      normalization=config.normalize,
      **widths,
    ),
    new_state=new_state,
    train_step=stacked.make_stacked_step(
      [member.sae for member in members],
      [member.optimizer for member in members],
      mesh,
      steps=config.steps,
      hooks=[hooks.index(member.hook) for member in members],
      targets=(
        [hooks.index(member.target) for member in members]
        if members[0].target
        else None
      ),
      **widths,
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
    lambda hook, target, k: held_out.make_look(
      dataclasses.replace(config.sae, k=k),
      rows(hook),
      mesh,
      rows(target) if target else None,
    )
  )
  looks = [
    look_at(member.hook, member.target, member.sae.k) for member in members
  ]

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


def _named(
  config: config_lib.TrainConfig, source: store.Store
) -> config_lib.TrainConfig:
  """The config with the store's names of hooks."""
  return dataclasses.replace(
    config,
    hook=source.hook(config.hook),
    target=source.hook(config.target) if config.target else "",
  )


def _look(
  config: config_lib.TrainConfig,
  source: store.Store,
  chunks: range,
  mesh: jax.sharding.Mesh,
) -> held_out.Look:
  """One dictionary's look at the held-out rows."""

  def rows(hook):
    return held_out.rows(config, source, hook, chunks, mesh) if hook else None

  return held_out.make_look(
    config.sae, rows(config.hook), mesh, rows(config.target)
  )


def _widths(
  source: store.Store, members: Sequence[config_lib.TrainConfig]
) -> dict[str, Any]:
  """`d_model` and, of transcoders, `d_out`."""
  return {
    "d_model": _width(source, [member.hook for member in members]),
    "d_out": _width(source, [member.target for member in members]),
  }


def _width(source: store.Store, hooks: Sequence[str]) -> int | None:
  """The one width that hooks have; None if they are no hooks."""
  widths = {hook: source.d_model(hook) for hook in hooks if hook}
  if len(set(widths.values())) > 1:
    held = ", ".join(f"{hook} is {d} wide" for hook, d in widths.items())
    raise errors.InputError(
      f"sweep: {held}; dictionaries that are trained in one step have one"
      " shape: give hooks of one width, and sweep the others in another run"
    )
  return next(iter(widths.values()), None)
