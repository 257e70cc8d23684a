# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One training step on a mesh `(sae, data, latent)` of any shape.

Reads a batch split over `data`; changes the whole `TrainState` in place.
All communication between shards is in one `shard_map` (`sae.losses`) except the
scalar sums of the gradient norm.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sae_jax import errors, sae
from sae_jax.ops import dispatch
from sae_jax.sae import init, losses
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib

_INT32_MAX = 2**31 - 1

TrainStep = Callable[
  [state_lib.TrainState, jax.Array],
  tuple[state_lib.TrainState, dict[str, jax.Array]],
]


def make_train_step(
  config: sae.SaeConfig,
  optimizer_config: optimizer_lib.OptimizerConfig,
  mesh: jax.sharding.Mesh,
  *,
  d_model: int,
  steps: int,
  implementation: str | None = None,
) -> TrainStep:
  """Compiles-on-first-call `train_step(state, x_BD) -> (state, scalars)`.

  The state is donated and keeps its shardings. `x_BD` holds raw activations of
  any float dtype, sharded `P("data", None)`; B divides over the data shards.

  Scalars (float32, on the device; `train/dead_frac`, `train/lr` are those that
  the step used): `train/loss`, `train/fvu` (Σ‖x̂ − x‖² / Σ‖x − x̄‖² of the
  batch), `train/l0`, `train/dead_frac`, `train/auxk` (before its coefficient),
  `train/redone` (1: a kernel could not certify its top-k, so the batch was done
  again by the exact path; always 0 where there is no such kernel),
  `train/grad_norm` (of the loss, before the projection), `train/lr`. A NaN or
  infinity anywhere in the batch or the parameters makes the loss non-finite.

  Args:
    config: the dictionary.
    optimizer_config: its optimizer.
    mesh: `(sae, data, latent)`.
    d_model: D.
    steps: the length of the run, which the learning rate's decay ends with.
    implementation: of the ops; None: by the mesh's platform.

  Raises:
    errors.InputError: the mesh does not fit.
  """
  if mesh.shape["sae"] != 1:
    raise errors.InputError(
      f"mesh.sae={mesh.shape['sae']}: this step trains one dictionary; use 1"
    )
  init.check_shards(config.latents, mesh.shape["latent"])
  optimizer = optimizer_lib.make_optimizer(
    optimizer_config, latents=config.latents, steps=steps
  )
  apply = optimizer_lib.make_apply(
    optimizer_config,
    mesh,
    latents=config.latents,
    steps=steps,
    implementation=implementation,
  )
  rate = optimizer_lib.schedule(
    optimizer_config, latents=config.latents, steps=steps
  )
  grad_fn = _sharded_grad(config, mesh, d_model, implementation)
  shardings = state_lib.state_sharding(
    state_lib.abstract_params(config.latents, d_model), optimizer, mesh
  )
  by_row = jax.NamedSharding(mesh, jax.P("data", None))
  replicated = jax.NamedSharding(mesh, jax.P())

  @functools.partial(
    jax.jit,
    in_shardings=(shardings, by_row),
    out_shardings=(shardings, replicated),
    donate_argnums=0,
  )
  def train_step(state, x_BD):
    dead_F = state.tokens_since_fired_F >= config.dead_after_tokens
    x_BD = x_BD.astype(jnp.float32) * state.scale
    loss, report, grads = grad_fn(
      state.params, x_BD, dead_F, state.total_variance
    )
    params, opt_state, grad_norm = apply(grads, state.opt_state, state.params)
    scalars = {
      "train/loss": loss,
      "train/fvu": report.fvu,
      "train/l0": report.l0,
      "train/dead_frac": jnp.mean(dead_F, dtype=jnp.float32),
      "train/auxk": report.auxk,
      "train/redone": report.redone.astype(jnp.float32),
      "train/grad_norm": grad_norm,
      "train/lr": rate(state.step),
    }
    state = state_lib.TrainState(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      tokens_since_fired_F=_count(
        state.tokens_since_fired_F, report.fired_F, x_BD.shape[0]
      ),
      scale=state.scale,
      total_variance=state.total_variance,
    )
    return state, scalars

  return train_step


def _count(tokens_F, fired_F, batch):
  """Tokens since each latent fired, at most the int32 maximum."""
  counted_F = jnp.minimum(tokens_F, _INT32_MAX - batch) + batch
  return jnp.where(fired_F, 0, counted_F)


def loss_spec(
  config: sae.SaeConfig,
  mesh: jax.sharding.Mesh,
  d_model: int,
  implementation: str | None = None,
) -> losses.LossSpec:
  """The loss of one shard of the mesh; `implementation` None: by platform."""
  platform = mesh.devices.flat[0].platform
  return losses.LossSpec(
    k=config.k,
    aux_k=config.resolve_aux_k(d_model),
    aux_coefficient=config.aux_coefficient,
    matmul_dtype=config.matmul_dtype,
    implementation=implementation or dispatch.for_platform(platform),
    # XLA does not remove a sum over one device: it would copy the gradients.
    data_axis="data" if mesh.shape["data"] > 1 else None,
    latent_axis="latent" if mesh.shape["latent"] > 1 else None,
  )


def _sharded_grad(config, mesh, d_model, implementation):
  """`(params, x, dead, variance) -> (loss, report, grads)` on the mesh."""
  spec = loss_spec(config, mesh, d_model, implementation)
  value_and_grad = jax.value_and_grad(losses.sae_loss, has_aux=True)

  def shard(params, x_BD, dead_F, total_variance):
    (loss, report), grads = value_and_grad(
      params, x_BD, dead_F, total_variance, spec
    )
    return loss, report, grads

  by_params = jax.tree.map(lambda s: s.spec, init.params_sharding(mesh))
  report: dict[str, Any] = {
    "fvu": jax.P(),
    "l0": jax.P(),
    "auxk": jax.P(),
    "redone": jax.P(),
    "fired_F": jax.P("latent"),
  }
  return jax.shard_map(
    shard,
    mesh=mesh,
    in_specs=(by_params, jax.P("data", None), jax.P("latent"), jax.P()),
    out_specs=(jax.P(), losses.Report(**report), by_params),
    check_vma=False,
  )
