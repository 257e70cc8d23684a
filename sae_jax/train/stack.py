# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The state of several dictionaries: one's, with a leading axis S over `sae`.

Where it lies, how it is put together, how one member is taken out of it. No
device holds more than its own members and a part of one.
"""

import functools
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sae_jax import errors, sae
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib

T = TypeVar("T")


def state_sharding(
  config: sae.SaeConfig,
  optimizer_config: optimizer_lib.OptimizerConfig,
  d_model: int,
  mesh: jax.sharding.Mesh,
  d_out: int | None = None,
) -> state_lib.TrainState:
  """Shardings of a stacked state: S over `sae`, the rest as for one."""
  optimizer = optimizer_lib.make_optimizer(
    optimizer_config, latents=config.latents, steps=1
  )
  one = state_lib.state_sharding(
    state_lib.abstract_params(config, d_model, d_out), optimizer, mesh
  )
  return jax.tree.map(_stacked, one)


def abstract_state(
  config: sae.SaeConfig,
  optimizer: optax.GradientTransformation,
  d_model: int,
  mesh: jax.sharding.Mesh,
  count: int,
  *,
  normalization: str = "scale",
  d_out: int | None = None,
) -> state_lib.TrainState:
  """Shapes, dtypes and shardings of a stack of `count`."""
  one = state_lib.abstract_state(
    config,
    optimizer,
    d_model,
    mesh,
    normalization=normalization,
    d_out=d_out,
  )
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(
      (count, *a.shape), a.dtype, sharding=_stacked(a.sharding)
    ),
    one,
  )


def _stacked(sharding: jax.NamedSharding) -> jax.NamedSharding:
  return jax.NamedSharding(sharding.mesh, jax.P("sae", *sharding.spec))


def stack_states(
  states: Iterable[state_lib.TrainState], count: int
) -> state_lib.TrainState:
  """A stacked state of `count` states, which are taken one after another.

  No more than the stack and one member are held if `states` makes them when
  they are asked for.

  Raises:
    errors.InputError: there are not `count` states.
  """
  place, state_S, seen = None, None, 0
  for seen, state in enumerate(states, 1):
    if seen > count:
      break
    if place is None:
      place, state_S = _new_stack(state, count)
    state_S = place(state_S, state, seen - 1)
  if state_S is None or seen != count:
    raise errors.InputError(f"{seen} states for a stack of {count}")
  return state_S


def _new_stack(state, count):
  """`place(state_S, state, index) -> state_S`, and a stack of zeros."""
  shardings = jax.tree.map(lambda a: _stacked(a.sharding), state)

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=shardings)
  def place(state_S, state, index):
    return put(state_S, state, index)

  @functools.partial(jax.jit, out_shardings=shardings)
  def zeros():
    return jax.tree.map(lambda a: jnp.zeros((count, *a.shape), a.dtype), state)

  return place, zeros()


def take(state_S: T, index: jax.typing.ArrayLike) -> T:
  """Member `index` of arrays that are not split over their first axis."""
  return jax.tree.map(
    lambda a: lax.dynamic_index_in_dim(a, index, keepdims=False), state_S
  )


def put(state_S: T, state: T, index: jax.typing.ArrayLike) -> T:
  """The inverse of `take`."""
  return jax.tree.map(
    lambda a, new: lax.dynamic_update_index_in_dim(a, new, index, 0),
    state_S,
    state,
  )


def member(tree_S: T, index: int) -> T:
  """A copy of one member of a stacked state, or of a part of one.

  It lies as one dictionary alone does on the same mesh.
  """
  leaves, structure = jax.tree.flatten(tree_S)
  send = _sender(tuple(a.sharding for a in leaves), len(leaves[0]), index)
  return structure.unflatten(send(leaves))


@functools.cache
def _sender(shardings: tuple[Any, ...], count: int, index: int):
  """The member's devices send it; XLA would gather the stack to slice it."""
  mesh = shardings[0].mesh
  owner, place = divmod(index, count // mesh.shape["sae"])

  def send(leaf_S):
    if mesh.shape["sae"] == 1:
      return leaf_S[place]
    # As integers: a sum of floats would turn -0 into 0.
    bits = lax.bitcast_convert_type(leaf_S[place], jnp.uint32)
    bits = jnp.where(lax.axis_index("sae") == owner, bits, jnp.uint32(0))
    return lax.bitcast_convert_type(lax.psum(bits, "sae"), leaf_S.dtype)

  return jax.jit(
    jax.shard_map(
      lambda leaves: [send(leaf_S) for leaf_S in leaves],
      mesh=mesh,
      in_specs=([s.spec for s in shardings],),
      out_specs=[jax.P(*s.spec[1:]) for s in shardings],
      check_vma=False,
    )
  )
