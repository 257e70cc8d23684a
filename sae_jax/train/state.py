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
from sae_jax.sae import crosscoder, init, transcoder, unfold
from sae_jax.sae import treatment as treatment_lib
from sae_jax.train import averaging, normalize
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
  threshold: jax.Array | None = None  # float32, BatchTopK's at inference


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
  target: normalize.Rows | None = None,
  seeds: Iterable[int],
  mesh: jax.sharding.Mesh,
  dictionary: sae.Sae | None = None,
) -> Iterator[TrainState]:
  """Yields a new state for every seed, each made when it is asked for.

  It is created in `state_sharding`.

  Args:
    config: the dictionary.
    optimizer: of `optimizer.make_optimizer`.
    rows: what is encoded; the sample is for the initial `b_dec` (Gao et al.'s
      code takes 32,768 rows).
    target: what a transcoder decodes to, of the same tokens; None: it is none.
    seeds: of the initial dictionary rows.
    mesh: `(sae, data, latent)`.
    dictionary: for raw activations, to start from; None: random rows.

  Raises:
    errors.InputError: an unusable dictionary, or latents that do not divide
      over the mesh.
  """
  new_params = _first_params(config, rows, target, mesh, dictionary)
  d_out = None if target is None else target.width
  params = abstract_params(config, rows.width, d_out)
  treatments = rows.treatment, target and target.treatment
  total_variance = (target or rows).total_variance
  del rows, target  # samples may be large, and the states may be many
  create = jax.jit(
    functools.partial(_new_state, config, optimizer),
    out_shardings=state_sharding(params, optimizer, mesh),
    donate_argnums=0,
  )
  for seed in seeds:
    yield create(
      new_params(seed),
      *jax.tree.map(np.float32, treatments),
      np.float32(total_variance),
    )


def _first_params(config, rows, target, mesh, dictionary):
  """`new_params(seed) -> sae.Params`."""
  if dictionary is not None:
    wanted = abstract_params(config, rows.width, target and target.width)
    return lambda seed: unfold.from_dictionary(
      dictionary,
      rows.treatment,
      mesh,
      outputs=target and target.treatment,
      wanted=wanted,
    )
  middle = (
    init.geometric_median
    if config.decoder_bias == "geometric_median"
    else init.mean
  )
  middle_D = normalize.treated(rows.treatment, middle(rows.sample_ND))
  if target is None:
    create = functools.partial(
      init.init_params, middle_D, partition=crosscoder.partition_of(config)
    )
  else:
    create = functools.partial(
      transcoder.init_params,
      middle_D,
      normalize.treated(target.treatment, middle(target.sample_ND)),
      transcoder.linear_map(
        normalize.treated(rows.treatment, rows.sample_ND),
        normalize.treated(target.treatment, target.sample_ND),
      ),
      skip=config.skip,
    )

  def new_params(seed):
    params = create(latents=config.latents, seed=seed, mesh=mesh)
    return init.with_latent_values(params, config, mesh)

  return new_params


def _new_state(config, optimizer, params, inputs, outputs, total_variance):
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    tokens_since_fired_F=jnp.zeros((params.latents,), jnp.int32),
    inputs=inputs,
    outputs=outputs,
    total_variance=total_variance,
    threshold=jnp.zeros(()) if config.activation == "batch_topk" else None,
  )


def abstract_params(
  config: sae.SaeConfig, d_model: int, d_out: int | None = None
) -> sae.Params:
  """Shapes and dtypes; `d_out` is a transcoder's, None: it is none."""

  def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  latents = config.latents
  width = d_model if d_out is None else d_out
  arrays: list[Any] = [
    zeros(latents, d_model),
    zeros(latents, width),
    zeros(latents),
    zeros(width),
  ]
  more: Any = {name: zeros(latents) for name in init.latent_values(config)}
  if config.skip:
    more["w_skip_DE"] = zeros(d_model, width)
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
    "threshold": replicated,
    "total_variance": replicated,
  }
  return TrainState(**shardings)


def abstract_state(
  config: sae.SaeConfig,
  optimizer: optax.GradientTransformation,
  d_model: int,
  mesh: jax.sharding.Mesh,
  *,
  normalization: str = "scale",
  d_out: int | None = None,
) -> TrainState:
  """Shapes, dtypes and shardings of the state, for restoring a checkpoint.

  Args:
    config: the dictionary.
    optimizer: of `optimizer.make_optimizer`.
    d_model: D.
    mesh: `(sae, data, latent)`.
    normalization: how rows are treated, see `normalize.treat`.
    d_out: of a transcoder's targets.
  """
  init.check_shards(config.latents, mesh.shape["latent"])
  params = abstract_params(config, d_model, d_out)
  scalar = jax.ShapeDtypeStruct((), jnp.float32)
  shapes = jax.eval_shape(
    functools.partial(_new_state, config, optimizer),
    params,
    normalize.abstract(normalization, d_model, sources=config.sources),
    None if d_out is None else normalize.abstract(normalization, d_out),
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
  threshold: jax.Array | None = None


def trained(state: TrainState) -> Trained:
  """The part of a state, or of a stacked one, that is exported."""
  return Trained(
    averaging.averaged(state.opt_state, state.params),
    state.inputs,
    state.outputs,
    state.threshold,
  )


def to_sae(
  state: TrainState, config: sae.SaeConfig, metadata: dict | None = None
) -> sae.Sae:
  """The dictionary for raw activations: the treatment is folded in."""
  return dictionary(trained(state), config, metadata)


def dictionary(
  part: Trained, config: sae.SaeConfig, metadata: dict | None = None
) -> sae.Sae:
  """`to_sae` of a part of the state."""
  params, activation = part.params, config.activation
  if part.threshold is not None:
    activation = "jumprelu"
    params = dataclasses.replace(
      params, threshold_F=jnp.broadcast_to(part.threshold, params.b_enc_F.shape)
    )
  # Other rows than of norm 1 are left, where a top-k compares their values.
  fold = functools.partial(treatment_lib.fold, unit_rows=activation != "topk")
  params = jax.jit(fold)(params, part.inputs, part.outputs)
  return sae.make_sae(
    params,
    config.k if activation == "topk" else min(config.latents, _PLACES),
    metadata,
    activation=activation,
    centred=part.outputs is None,
    sources=config.sources,
  )
