# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Several dictionaries of one shape, trained on one batch by one program.

The state is that of one dictionary with a leading axis S, split over the mesh
axis `sae`. A batch is read and scaled once.

On two cores, as two CPU devices with mesh.sae=2, eight members (B=2048, D=576,
F=4096, K=32) took 0.71 of the time of eight separate steps; on one CPU device,
where they are equal to the bit, 1.1.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sae_jax import errors, sae
from sae_jax.sae import init
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib
from sae_jax.train import step as step_lib

# What the members of a stack may differ in; `decoder_bias` is of the start.
_SAE_MAY_DIFFER = ("k", "aux_coefficient", "decoder_bias")
_OPTIMIZER_MAY_DIFFER = ("learning_rate",)


def make_stacked_step(
  configs: Sequence[sae.SaeConfig],
  optimizer_configs: Sequence[optimizer_lib.OptimizerConfig],
  mesh: jax.sharding.Mesh,
  *,
  d_model: int,
  steps: int,
  implementation: str | None = None,
) -> step_lib.TrainStep:
  """`step(state_S, x_BD) -> (state_S, scalars_S)` for S dictionaries.

  What `make_train_step` does, for every member: to the bit on one CPU device,
  up to float reassociation elsewhere. k, AuxK's coefficient and the learning
  rate may differ, and the initial state, hence the seed. A member that diverges
  does not touch the others. The state is donated and keeps its shardings
  (`state_sharding`); the scalars are [S], replicated.

  Args:
    configs: the dictionaries.
    optimizer_configs: their optimizers, as many.
    mesh: `(sae, data, latent)`; S divides over `sae`.
    d_model: D.
    steps: the length of the run, which the learning rates' decay ends with.
    implementation: of the ops; None: by the mesh's platform.

  Raises:
    errors.InputError: the members differ in something else, or the mesh does
      not fit.
  """
  _check(configs, optimizer_configs, mesh)
  fixed = {"d_model": d_model, "steps": steps, "implementation": implementation}
  on_cpu = mesh.devices.flat[0].platform == "cpu"
  train_members = (
    _all_at_once if on_cpu and mesh.shape["sae"] == 1 else _in_turn
  )
  train = train_members(configs, optimizer_configs, mesh, fixed)

  def shard(state_S, members_S, x_BD):
    return train(state_S, members_S, step_lib.scaled(x_BD, state_S.scale[0]))

  shardings = state_sharding(configs[0], optimizer_configs[0], d_model, mesh)
  by_row = jax.NamedSharding(mesh, jax.P("data", None))
  state_specs = jax.tree.map(lambda s: s.spec, shardings)
  sharded = jax.shard_map(
    shard,
    mesh=mesh,
    in_specs=(state_specs, jax.P("sae"), by_row.spec),
    out_specs=(state_specs, jax.P("sae")),
    check_vma=False,
  )
  members_S = _differences(configs, optimizer_configs)
  return jax.jit(
    lambda state_S, x_BD: sharded(state_S, members_S, x_BD),
    in_shardings=(shardings, by_row),
    out_shardings=(shardings, jax.NamedSharding(mesh, jax.P())),
    donate_argnums=0,
  )


def _all_at_once(configs, optimizer_configs, mesh, fixed):
  """Every member's own step in one program, to the bit.

  At the cost of copies of all members, and of compile time that grows with S.
  """
  steps = [
    step_lib.make_shard_step(config, optimizer_config, mesh, **fixed)
    for config, optimizer_config in zip(configs, optimizer_configs, strict=True)
  ]

  def train(state_S, members_S, x_BD):
    del members_S
    states = [_member(state_S, i) for i in range(len(steps))]
    # Without these borders XLA cuts members out, and puts them back, inside
    # the loops that compute them, and rounds otherwise than in a step alone.
    states = lax.optimization_barrier(states)
    done = [
      step(state, x_BD) for step, state in zip(steps, states, strict=True)
    ]
    done = lax.optimization_barrier(done)
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *done)

  return train


def _in_turn(configs, optimizer_configs, mesh, fixed):
  """One member after another, in place: one program and the memory of one."""
  # The program takes the largest k; a member keeps the first of its own.
  config = dataclasses.replace(
    configs[0],
    k=max(c.k for c in configs),
    aux_coefficient=max(c.aux_coefficient for c in configs),
  )
  step = step_lib.make_shard_step(config, optimizer_configs[0], mesh, **fixed)

  def train(state_S, members_S, x_BD):
    def train_member(state_S, at):
      index, member = at
      state = _member(state_S, index)
      state, scalars = step(state, x_BD, member)
      return _put(state_S, state, index), scalars

    count = state_S.step.shape[0]
    return lax.scan(train_member, state_S, (jnp.arange(count), members_S))

  return train


def _member(state_S, index):
  return jax.tree.map(
    lambda a: lax.dynamic_index_in_dim(a, index, keepdims=False), state_S
  )


def _put(state_S, state, index):
  return jax.tree.map(
    lambda a, new: lax.dynamic_update_index_in_dim(a, new, index, 0),
    state_S,
    state,
  )


def _differences(configs, optimizer_configs):
  """[S] of what the members differ in, for programs that all of them share."""
  rates = [
    optimizer_lib.resolve_learning_rate(o, c.latents)
    for o, c in zip(optimizer_configs, configs, strict=True)
  ]
  return step_lib.Member(
    k=_varying([c.k for c in configs], np.int32),
    aux_coefficient=_varying([c.aux_coefficient for c in configs], np.float32),
    peak_rate=_varying(rates, np.float32),
  )


def _varying(values, dtype) -> Any:
  """The members' values [S]; None where they are the same."""
  return np.array(values, dtype) if len(set(values)) > 1 else None


def _check(configs, optimizer_configs, mesh):
  if not configs or len(configs) != len(optimizer_configs):
    raise errors.InputError(
      f"{len(configs)} dictionaries and {len(optimizer_configs)} optimizers:"
      " need one optimizer for each, and at least one"
    )
  for name, members, may_differ in (
    ("sae", configs, _SAE_MAY_DIFFER),
    ("optimizer", optimizer_configs, _OPTIMIZER_MAY_DIFFER),
  ):
    for field in dataclasses.fields(members[0]):
      values = [getattr(member, field.name) for member in members]
      other = next((i for i, v in enumerate(values) if v != values[0]), None)
      if other is not None and field.name not in may_differ:
        raise errors.InputError(
          f"{name}.{field.name} is {values[0]} of dictionary 0 and"
          f" {values[other]} of dictionary {other}: dictionaries that are"
          f" trained in one step may differ in {', '.join(may_differ)} and"
          " their seeds; train the others in a run of their own"
        )
  if len(configs) % mesh.shape["sae"]:
    raise errors.InputError(
      f"{len(configs)} dictionaries do not divide over"
      f" mesh.sae={mesh.shape['sae']}; use a mesh.sae that divides them"
    )
  init.check_shards(configs[0].latents, mesh.shape["latent"])


def state_sharding(
  config: sae.SaeConfig,
  optimizer_config: optimizer_lib.OptimizerConfig,
  d_model: int,
  mesh: jax.sharding.Mesh,
) -> state_lib.TrainState:
  """Shardings of a stacked state: S over `sae`, the rest as for one."""
  optimizer = optimizer_lib.make_optimizer(
    optimizer_config, latents=config.latents, steps=1
  )
  one = state_lib.state_sharding(
    state_lib.abstract_params(config.latents, d_model), optimizer, mesh
  )
  return jax.tree.map(
    lambda s: jax.NamedSharding(mesh, jax.P("sae", *s.spec)), one
  )


def stack_states(
  states: Iterable[state_lib.TrainState], count: int
) -> state_lib.TrainState:
  """A stacked state of `count` states, which are taken one after another.

  No more than the stack and one member are held if `states` makes them when
  they are asked for.

  Raises:
    errors.InputError: there are not `count` states, or they are for rows of
      different scale: a stacked step scales a batch once.
  """
  place, state_S, first, seen = None, None, None, 0
  for seen, state in enumerate(states, 1):
    statistics = (float(state.scale), float(state.total_variance))
    if place is None:
      first = statistics
      place, state_S = _new_stack(state, count)
    if seen > count or statistics != first:
      raise errors.InputError(
        f"dictionary {seen - 1} of {count}: scale and total variance"
        f" {statistics}, of the first one {first}; give {count} states for"
        " activations of the same store and hook"
      )
    state_S = place(state_S, state, seen - 1)
  if state_S is None or seen != count:
    raise errors.InputError(f"{seen} states for a stack of {count}")
  return state_S


def _new_stack(state, count):
  """`place(state_S, state, index) -> state_S`, and a stack of zeros."""
  shardings = jax.tree.map(
    lambda a: jax.NamedSharding(
      a.sharding.mesh, jax.P("sae", *a.sharding.spec)
    ),
    state,
  )

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=shardings)
  def place(state_S, state, index):
    return _put(state_S, state, index)

  @functools.partial(jax.jit, out_shardings=shardings)
  def zeros():
    return jax.tree.map(lambda a: jnp.zeros((count, *a.shape), a.dtype), state)

  return place, zeros()


def member_state(
  state_S: state_lib.TrainState, index: int
) -> state_lib.TrainState:
  """A copy of one member, in the shardings of a state of one dictionary."""
  leaves, structure = jax.tree.flatten(state_S)
  take = _taker(tuple(a.sharding for a in leaves))
  return structure.unflatten(take(leaves, index))


@functools.cache
def _taker(shardings: tuple[Any, ...]):
  out = [jax.NamedSharding(s.mesh, jax.P(*s.spec[1:])) for s in shardings]

  @functools.partial(jax.jit, out_shardings=out)
  def take(leaves, index):
    return [lax.dynamic_index_in_dim(a, index, keepdims=False) for a in leaves]

  return take
