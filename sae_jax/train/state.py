# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Everything that a training step changes, and where it lies on the mesh.

A run that is restored from a `TrainState` and the stream's position goes on as
if it had never stopped. A step draws no random numbers, so there is no key.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sae_jax import sae
from sae_jax.sae import crosscoder, init, unfold
from sae_jax.sae import treatment as treatment_lib
from sae_jax.train import normalize
from sae_jax.train import optimizer as optimizer_lib


# Places that a row gets in compiled programs where its number of active latents
# is not fixed; a row that needs more is NaN there.
_PLACES = 1024


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """The state of one dictionary in training."""

  step: jax.Array  # int32, steps done
  params: sae.Params  # float32, for treated activations
  opt_state: optax.OptState
  tokens_since_fired_F: jax.Array  # int32, stops at the int32 maximum
  inputs: treatment_lib.Treatment  # of what is encoded
  total_variance: jax.Array  # float32, Σ_D variance of treated activations
  outputs: treatment_lib.Treatment | None = None  # of a transcoder's targets


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
  """A new state for scaled rows; see `init_states`.

  Args:
    config: the dictionary.
    optimizer: of `optimizer.make_optimizer`.
    sample_ND: raw activations.
    mean_square_norm: mean ‖x‖² of the raw activations of the data set.
    total_variance: Σ_D of the raw activations' variance in the data set.
    seed: of the initial dictionary rows.
    mesh: `(sae, data, latent)`.
    dictionary: for raw activations, to start from; None: random rows.
  """
  moments = normalize.Moments(
    mean_D=np.zeros(()),  # of the variances only the sum is used
    variance_D=np.asarray(total_variance),
    mean_square_norm=mean_square_norm,
  )
  (state,) = init_states(
    config,
    optimizer,
    normalize.treat("scale", sample_ND, moments),
    seeds=(seed,),
    mesh=mesh,
    dictionary=dictionary,
  )
  return state


def init_states(
  config: sae.SaeConfig,
  optimizer: optax.GradientTransformation,
  rows: normalize.Rows,
  *,
  seeds: Iterable[int],
  mesh: jax.sharding.Mesh,
  dictionary: sae.Sae | None = None,
) -> Iterator[TrainState]:
  """Yields a new state for every seed, each made when it is asked for.

  It is created in `state_sharding`.

  Args:
    config: the dictionary.
    optimizer: of `optimizer.make_optimizer`.
    rows: what is encoded; the sample is for the initial `b_dec` (Gao et al.
      take 32,768 rows).
    seeds: of the initial dictionary rows.
    mesh: `(sae, data, latent)`.
    dictionary: for raw activations, to start from; None: random rows.

  Raises:
    errors.InputError: an unusable dictionary, or latents that do not divide
      over the mesh.
  """
  new_params = _first_params(config, rows, mesh, dictionary)
  treatment, total_variance = rows.treatment, rows.total_variance
  width = rows.width
  del rows  # the sample may be large, and the states may be many
  create = jax.jit(
    functools.partial(_new_state, optimizer),
    out_shardings=state_sharding(
      abstract_params(config, width), optimizer, mesh
    ),
    donate_argnums=0,
  )
  for seed in seeds:
    yield create(
      new_params(seed),
      jax.tree.map(np.float32, treatment),
      np.float32(total_variance),
    )


def _first_params(config, rows, mesh, dictionary):
  """`new_params(seed) -> sae.Params`."""
  if dictionary is not None:
    wanted = abstract_params(config, rows.width)
    return lambda seed: unfold.from_dictionary(
      dictionary, rows.treatment, mesh, wanted=wanted
    )
  middle = (
    init.geometric_median
    if config.decoder_bias == "geometric_median"
    else init.mean
  )
  b_dec_D = normalize.treated(rows.treatment, middle(rows.sample_ND))
  partition = crosscoder.partition_of(config)

  def new_params(seed):
    params = init.init_params(b_dec_D, config.latents, seed, mesh, partition)
    return init.with_latent_values(params, config, mesh)

  return new_params


def _new_state(optimizer, params, inputs, total_variance):
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    tokens_since_fired_F=jnp.zeros((params.latents,), jnp.int32),
    inputs=inputs,
    total_variance=total_variance,
  )


def abstract_params(config: sae.SaeConfig, d_model: int) -> sae.Params:
  """Shapes and dtypes of the parameters."""

  def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  latents = config.latents
  arrays: list[Any] = [
    zeros(latents, d_model),
    zeros(latents, d_model),
    zeros(latents),
    zeros(d_model),
  ]
  more: Any = {name: zeros(latents) for name in init.latent_values(config)}
  return sae.Params(*arrays, **more)


def state_sharding(
  params: sae.Params,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
) -> TrainState:
  """Shardings of the state; `params` may be abstract.

  A prefix of the state's tree: one for a treatment, whatever is in it.
  """
  replicated = jax.NamedSharding(mesh, jax.P())
  by_params = init.params_sharding(mesh, params)
  shardings: dict[str, Any] = {
    "step": replicated,
    "params": by_params,
    "opt_state": optimizer_lib.state_sharding(
      optimizer, params, by_params, replicated
    ),
    "tokens_since_fired_F": jax.NamedSharding(mesh, jax.P("latent")),
    "inputs": replicated,
    "outputs": replicated,
    "total_variance": replicated,
  }
  return TrainState(**shardings)


def abstract_state(
  config: sae.SaeConfig,
  optimizer: optax.GradientTransformation,
  d_model: int,
  mesh: jax.sharding.Mesh,
  *,
  inputs: treatment_lib.Treatment | None = None,
) -> TrainState:
  """Shapes, dtypes and shardings of the state, for restoring a checkpoint.

  Args:
    config: the dictionary.
    optimizer: of `optimizer.make_optimizer`.
    d_model: D.
    mesh: `(sae, data, latent)`.
    inputs: abstract; None: of one scale.
  """
  init.check_shards(config.latents, mesh.shape["latent"])
  params = abstract_params(config, d_model)
  scalar = jax.ShapeDtypeStruct((), jnp.float32)
  shapes = jax.eval_shape(
    functools.partial(_new_state, optimizer),
    params,
    treatment_lib.Treatment(scalar) if inputs is None else inputs,
    scalar,
  )
  return place(shapes, state_sharding(params, optimizer, mesh))


def place(shapes: TrainState, shardings: TrainState) -> TrainState:
  """Abstract arrays with shardings, which are a prefix of their tree."""
  return jax.tree.map(
    lambda sharding, part: jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
      part,
    ),
    shardings,
    shapes,
  )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trained:
  """What a state's dictionary is made of."""

  params: sae.Params
  inputs: treatment_lib.Treatment
  outputs: treatment_lib.Treatment | None = None


def trained(state: TrainState) -> Trained:
  """The part of a state, or of a stacked one, that is exported."""
  return Trained(state.params, state.inputs, state.outputs)


def to_sae(
  state: TrainState, config: sae.SaeConfig, metadata: dict | None = None
) -> sae.Sae:
  """The dictionary for raw activations: the treatment is folded in."""
  return dictionary(trained(state), config, metadata)


def dictionary(
  part: Trained, config: sae.SaeConfig, metadata: dict | None = None
) -> sae.Sae:
  """`to_sae` of a part of the state."""
  params = jax.jit(treatment_lib.fold)(part.params, part.inputs, part.outputs)
  dense = config.activation in sae.DENSE
  return sae.make_sae(
    params,
    min(config.latents, _PLACES) if dense else config.k,
    metadata,
    activation=config.activation,
    sources=config.sources,
  )
