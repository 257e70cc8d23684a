# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Everything that a training step changes, and where it lies on the mesh.

A run that is restored from a `TrainState` and the stream's position goes on as
if it had never stopped. A step draws no random numbers, so there is no key.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sae_jax import errors, sae
from sae_jax.sae import init
from sae_jax.train import optimizer as optimizer_lib


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """The state of one dictionary in training."""

  step: jax.Array  # int32, steps done
  params: sae.Params  # float32, for scaled activations
  opt_state: optax.OptState
  tokens_since_fired_F: jax.Array  # int32, stops at the int32 maximum
  scale: jax.Array  # float32; activations are multiplied by it
  total_variance: jax.Array  # float32, Σ_D variance of scaled activations


def activation_scale(d_model: int, mean_square_norm: float) -> float:
  """`sqrt(D) / sqrt(mean ‖x‖²)`: scaled rows have a mean square norm of D.

  Raises:
    errors.InputError: the norm is not positive and finite.
  """
  if not (math.isfinite(mean_square_norm) and mean_square_norm > 0):
    raise errors.InputError(
      f"mean square norm of the activations is {mean_square_norm}; need a"
      " finite number > 0: the store holds no usable rows"
    )
  return math.sqrt(d_model / mean_square_norm)


def init_state(
  config: sae.SaeConfig,
  optimizer: optax.GradientTransformation,
  *,
  sample_ND: np.ndarray,
  mean_square_norm: float,
  total_variance: float,
  seed: int,
  mesh: jax.sharding.Mesh,
  dictionary: sae.Sae | None = None,
) -> TrainState:
  """A new state, created in `state_sharding`; see `init_states`."""
  (state,) = init_states(
    config,
    optimizer,
    sample_ND=sample_ND,
    mean_square_norm=mean_square_norm,
    total_variance=total_variance,
    seeds=(seed,),
    mesh=mesh,
    dictionary=dictionary,
  )
  return state


def init_states(
  config: sae.SaeConfig,
  optimizer: optax.GradientTransformation,
  *,
  sample_ND: np.ndarray,
  mean_square_norm: float,
  total_variance: float,
  seeds: Iterable[int],
  mesh: jax.sharding.Mesh,
  dictionary: sae.Sae | None = None,
) -> Iterator[TrainState]:
  """Yields a new state for every seed, each made when it is asked for.

  Args:
    config: the dictionary.
    optimizer: of `optimizer.make_optimizer`.
    sample_ND: raw activations for the initial `b_dec`; the same on every
      process. Gao et al. take 32,768 rows.
    mean_square_norm: mean ‖x‖² of the raw activations of the data set.
    total_variance: Σ_D of the raw activations' variance in the data set.
    seeds: of the initial dictionary rows.
    mesh: `(sae, data, latent)`.
    dictionary: for raw activations, to start from; None: random rows.

  Raises:
    errors.InputError: unusable statistics or dictionary, or latents that do
      not divide over the mesh.
  """
  sample_ND = np.asarray(sample_ND, np.float32)
  if sample_ND.ndim != 2 or not len(sample_ND):
    raise errors.InputError(
      f"sample of shape {sample_ND.shape}: need [N, D] with N >= 1"
    )
  if not np.isfinite(sample_ND).all():
    raise errors.InputError(
      "the sample of activations holds NaN or infinity; run `sae-jax verify`"
      " on the store"
    )
  if not (math.isfinite(total_variance) and total_variance > 0):
    raise errors.InputError(
      f"total variance of the activations is {total_variance}; need a finite"
      " number > 0: all rows of the store are equal"
    )
  scale = activation_scale(sample_ND.shape[1], mean_square_norm)
  d_model = sample_ND.shape[1]
  new_params = _first_params(config, sample_ND, scale, mesh, dictionary)
  del sample_ND  # it may be large, and the states may be many
  create = jax.jit(
    functools.partial(_new_state, optimizer),
    out_shardings=state_sharding(
      abstract_params(config.latents, d_model), optimizer, mesh
    ),
    donate_argnums=0,
  )
  for seed in seeds:
    yield create(
      new_params(seed),
      np.float32(scale),
      np.float32(total_variance * scale * scale),
    )


def _first_params(config, sample_ND, scale, mesh, dictionary):
  """`new_params(seed) -> sae.Params`."""
  if dictionary is not None:
    return lambda seed: init.from_dictionary(dictionary, scale, mesh)
  centre = (
    init.geometric_median
    if config.decoder_bias == "geometric_median"
    else init.mean
  )
  b_dec_D = centre(sample_ND) * np.float32(scale)
  return lambda seed: init.init_params(b_dec_D, config.latents, seed, mesh)


def _new_state(optimizer, params, scale, total_variance):
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    tokens_since_fired_F=jnp.zeros((params.latents,), jnp.int32),
    scale=scale,
    total_variance=total_variance,
  )


def abstract_params(latents: int, d_model: int) -> sae.Params:
  """Shapes and dtypes of the parameters."""

  def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  arrays: list[Any] = [
    zeros(latents, d_model),
    zeros(latents, d_model),
    zeros(latents),
    zeros(d_model),
  ]
  return sae.Params(*arrays)


def state_sharding(
  params: sae.Params,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Shardings of every array of the state; `params` may be abstract."""
  replicated = jax.NamedSharding(mesh, jax.P())
  by_params = init.params_sharding(mesh, params)
  shardings: dict[str, Any] = {
    "step": replicated,
    "params": by_params,
    "opt_state": optimizer_lib.state_sharding(
      optimizer, params, by_params, replicated
    ),
    "tokens_since_fired_F": jax.NamedSharding(mesh, jax.P("latent")),
    "scale": replicated,
    "total_variance": replicated,
  }
  return TrainState(**shardings)


def abstract_state(
  config: sae.SaeConfig,
  optimizer: optax.GradientTransformation,
  d_model: int,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Shapes, dtypes and shardings of the state, for restoring a checkpoint."""
  init.check_shards(config.latents, mesh.shape["latent"])
  params = abstract_params(config.latents, d_model)
  scalar = jax.ShapeDtypeStruct((), jnp.float32)
  shapes = jax.eval_shape(
    functools.partial(_new_state, optimizer), params, scalar, scalar
  )
  return jax.tree.map(
    lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
    shapes,
    state_sharding(params, optimizer, mesh),
  )


def to_sae(
  state: TrainState, config: sae.SaeConfig, metadata: dict | None = None
) -> sae.Sae:
  """The dictionary for raw activations: the normaliser is folded in."""
  return dictionary(state.params, state.scale, config, metadata)


def dictionary(
  params: sae.Params,
  scale: jax.Array,
  config: sae.SaeConfig,
  metadata: dict | None = None,
) -> sae.Sae:
  """`to_sae` of a part of the state."""
  params = jax.jit(sae.fold_scale)(params, scale)
  return sae.make_sae(params, config.k, metadata)
