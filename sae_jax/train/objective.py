# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which loss a dictionary is trained with, and its constants."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sae_jax import sae
from sae_jax.ops import dispatch
from sae_jax.sae import dense_losses, losses

_LEAST = 1e-6
_DEAD_AFTER = 10_000_000  # Gao et al. 2024, App. A.2


def loss_and_grads(config: sae.SaeConfig) -> Callable[..., Any]:
  """`losses.loss_and_grads`, or that of the dense kinds."""
  of = dense_losses if config.activation in sae.DENSE else losses
  return of.loss_and_grads


def at_step(
  config: sae.SaeConfig, step: jax.Array, member: Any, steps: int
) -> tuple[dict[str, Any], jax.Array | None]:
  """Arguments that only one family's loss takes, and λ, which may be None."""
  if config.activation not in sae.DENSE:
    return {"k": member.k}, None
  peak = member.sparsity
  if peak is None:
    peak = config.resolve_sparsity()
  sparsity = dense_losses.sparsity_at(config, step, peak=peak, steps=steps)
  return {"sparsity": sparsity, "target_l0": member.target_l0}, sparsity


def grad_scale(config: sae.SaeConfig, loss: jax.Array) -> jax.Array | float:
  """What the loss's gradient is multiplied by: ∇ log L = ∇ L / L.

  A loss below 1e-6 counts as that: nothing is left to explain.
  """
  if not config.resolve_log_loss():
    return 1.0
  return 1 / jnp.where(loss > _LEAST, loss, _LEAST)


def dead_after(
  config: sae.SaeConfig, *, batch: int, steps: int, turn: jax.typing.ArrayLike
) -> jax.typing.ArrayLike:
  """Tokens without firing after which a latent is dead; int32 or an int.

  As given, or 10 million, at most a fortieth of the run, which AuxK would
  otherwise help too late; but at least `turn` steps. Sooner it takes latents
  that are rare or still on their way for dead, and has every one of them model
  what is left over, where they stay: 28 % of 4,608 were never used after 600
  steps that waited for 30 and not 110 (benchmarks/quality.md).

  Args:
    batch: tokens of a step.
    steps: of the run.
    turn: of `optimizer.steps_to_turn`.
  """
  if config.dead_after_tokens is not None:
    return config.dead_after_tokens
  wait = jnp.maximum(max(1, steps // 40), turn)
  most = -(-_DEAD_AFTER // batch)
  return jnp.minimum(jnp.minimum(wait, most) * batch, _DEAD_AFTER)


def loss_spec(
  config: sae.SaeConfig,
  mesh: jax.sharding.Mesh,
  d_model: int,
  implementation: str | None = None,
  *,
  centred: bool = True,
) -> losses.LossSpec | dense_losses.DenseSpec:
  """The loss of one shard of the mesh; `implementation` None: by platform."""
  platform = mesh.devices.flat[0].platform
  common: dict[str, Any] = {
    "aux_k": config.resolve_aux_k(d_model),
    "aux_coefficient": config.aux_coefficient,
    "matmul_dtype": config.matmul_dtype,
    "centred": centred,
    "sources": config.sources,
    "implementation": implementation or dispatch.for_platform(platform),
    # XLA does not remove a sum over one device: it would copy the gradients.
    "data_axis": "data" if mesh.shape["data"] > 1 else None,
    "latent_axis": "latent" if mesh.shape["latent"] > 1 else None,
  }
  if config.activation in sae.DENSE:
    return dense_losses.DenseSpec(
      activation=config.activation,
      sparsity=config.resolve_sparsity(),
      target_l0=config.target_l0,
      bandwidth=config.bandwidth,
      pre_act=config.pre_act,
      shared_latents=config.shared_latents,
      shared_sparsity=config.shared_sparsity,
      **common,
    )
  return losses.LossSpec(
    k=config.k,
    activation=config.activation,
    prefixes=config.prefixes,
    multi_topk=config.multi_topk,
    recall_target=config.recall_target,
    **common,
  )
