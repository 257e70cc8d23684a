# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One training step on a mesh `(sae, data, latent)` of any shape.

Reads a batch split over `data`; changes the whole `TrainState` in place. The
whole step is one `shard_map`; what shards say to each other is in `sae.losses`,
but for the gradient norm and the count of dead latents.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax import errors, sae
from sae_jax.sae import at_threshold, crosscoder, init, treatment
from sae_jax.train import annealing, objective, one_pass
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib

_INT32_MAX = 2**31 - 1

TrainStep = Callable[
  [state_lib.TrainState, Any], tuple[state_lib.TrainState, dict[str, jax.Array]]
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Member:
  """What may differ between dictionaries that go through one program.

  None: what the configs say.
  """

  k: jax.Array | None = None  # int32, at most the config's
  aux_coefficient: jax.Array | None = None  # float32
  sparsity: jax.Array | None = None  # float32, after its warm-up
  target_l0: jax.Array | None = None  # float32
  peak_rate: jax.Array | None = None  # float32, of the learning rate
  turn: jax.Array | None = None  # int32, steps that it takes to turn a latent


_AS_CONFIGURED = Member()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Found:
  """What a batch says about a state."""

  grads: sae.Params  # this shard's, of the loss
  tokens_since_fired_F: jax.Array  # int32, with this batch
  peak_rate: jax.Array | float
  # What makes them those of what is minimised, such as the loss's logarithm.
  grad_scale: jax.Array | float
  scalars: dict[str, jax.Array]  # all but the gradient's norm
  threshold: jax.Array | None = None  # BatchTopK's, with this batch


@dataclasses.dataclass(frozen=True)
class ShardStep:
  """A step on a shard's part of state and rows, inside a `shard_map`.

  `measure(state, x_BD, member=Member(), target_BE=None) -> Found` takes raw
  rows and changes nothing. `update(state, found) -> (state, Σ g²)` needs no
  other shard. `norm(Σ g²)` is the gradient's, over all shards.
  """

  measure: Callable[..., Found]
  update: Callable[
    [state_lib.TrainState, Found], tuple[state_lib.TrainState, jax.Array]
  ]
  norm: Callable[[jax.Array], jax.Array]


def make_train_step(
  config: sae.SaeConfig,
  optimizer_config: optimizer_lib.OptimizerConfig,
  mesh: jax.sharding.Mesh,
  *,
  d_model: int,
  steps: int,
  d_out: int | None = None,
  implementation: str | None = None,
) -> TrainStep:
  """Compiles-on-first-call `train_step(state, x_BD) -> (state, scalars)`.

  The state is donated and keeps its shardings. `x_BD` holds raw activations of
  any float dtype, sharded `P("data", None)`; B divides over the data shards.

  Scalars (float32, on the device; `train/dead_frac`, `train/lr` are those that
  the step used): `train/loss` (not its logarithm), `train/fvu`
  (Σ‖x̂ − x‖² / Σ‖x − x̄‖² of the batch), `train/l0`, `train/dead_frac`,
  `train/auxk` (before its coefficient),
  `train/redone` (1: a kernel could not certify its top-k, so the batch was done
  again by the exact path; always 0 where there is no such kernel; of BatchTopK
  1 if it was done densely, see `sae.batch_dense`),
  `train/topk_recall` (with `recall_target`: the share of the exact top-k that
  was found, measured on a few rows), `train/k` (with `k_start`),
  `train/threshold` (of BatchTopK, with this batch),
  `train/sparsity` (of the dense kinds: λ as the step used it),
  `train/grad_norm` (of the loss, before the projection), `train/lr`. A NaN or
  infinity anywhere in the batch or the parameters makes the loss non-finite.

  Args:
    config: the dictionary.
    optimizer_config: its optimizer.
    mesh: `(sae, data, latent)`.
    d_model: D.
    steps: the length of the run, which the learning rate's decay ends with.
    d_out: E of a transcoder, whose batches are (x_BD, target_BE); None: rows
      are decoded to themselves.
    implementation: of the ops; None: by the mesh's platform.

  Raises:
    errors.InputError: the mesh does not fit.
  """
  if mesh.shape["sae"] != 1:
    raise errors.InputError(
      f"mesh.sae={mesh.shape['sae']}: this step trains one dictionary; use 1,"
      " or give a sweep of several"
    )
  init.check_shards(config.latents, mesh.shape["latent"])
  optimizer = optimizer_lib.make_optimizer(
    optimizer_config, latents=config.latents, steps=steps
  )
  shardings = state_lib.state_sharding(
    state_lib.abstract_params(config, d_model, d_out), optimizer, mesh
  )
  by_row = jax.NamedSharding(mesh, jax.P("data", None))
  replicated = jax.NamedSharding(mesh, jax.P())
  step = make_shard_step(
    config,
    optimizer_config,
    mesh,
    d_model=d_model,
    steps=steps,
    d_out=d_out,
    implementation=implementation,
  )

  def shard(state, batch):
    x_BD, target_BE = (batch, None) if d_out is None else batch
    found = step.measure(state, x_BD, target_BE=target_BE)
    state, square = step.update(state, found)
    return state, found.scalars | {"train/grad_norm": step.norm(square)}

  state_specs = jax.tree.map(lambda s: s.spec, shardings)
  return jax.jit(
    jax.shard_map(
      shard,
      mesh=mesh,
      in_specs=(state_specs, by_row.spec),
      out_specs=(state_specs, replicated.spec),
      check_vma=False,
    ),
    in_shardings=(shardings, by_row),
    out_shardings=(shardings, replicated),
    donate_argnums=0,
  )


def make_shard_step(
  config: sae.SaeConfig,
  optimizer_config: optimizer_lib.OptimizerConfig,
  mesh: jax.sharding.Mesh,
  *,
  d_model: int,
  steps: int,
  d_out: int | None = None,
  implementation: str | None = None,
) -> ShardStep:
  """The parts of a step; the arguments are those of `make_train_step`."""
  spec = objective.loss_spec(
    config, mesh, d_model, implementation, centred=d_out is None
  )
  apply = one_pass.make_apply(
    optimizer_config,
    mesh,
    latents=config.latents,
    steps=steps,
    implementation=implementation,
  )
  own_peak = optimizer_lib.resolve_learning_rate(
    optimizer_config, config.latents, steps
  )
  own_turn = optimizer_lib.steps_to_turn(
    optimizer_config, config.latents, d_model, steps
  )
  partition = crosscoder.partition_of(config)

  def measure(state, x_BD, member=_AS_CONFIGURED, target_BE=None):
    x_BD = lax.optimization_barrier(treatment.apply(state.inputs, x_BD))
    if target_BE is not None:
      target_BE = treatment.apply(state.outputs, target_BE)
      target_BE = lax.optimization_barrier(target_BE)
    batch = x_BD.shape[0] * mesh.shape["data"]
    dead_F = state.tokens_since_fired_F >= objective.dead_after(
      config,
      batch=batch,
      steps=steps,
      turn=own_turn if member.turn is None else member.turn,
    )
    dead = jnp.sum(dead_F, dtype=jnp.float32)
    if mesh.shape["latent"] > 1:
      dead = lax.psum(dead, "latent")
    peak = own_peak if member.peak_rate is None else member.peak_rate
    own, sparsity = objective.at_step(config, state.step, member, steps)

    def evaluate(spec, **own):
      return objective.loss_and_grads(config)(
        state.params,
        x_BD,
        dead_F,
        state.total_variance,
        spec,
        target_BE=target_BE,
        aux_coefficient=member.aux_coefficient,
        **own,
      )

    k = annealing.k_at(config, state.step, member.k)
    if k is None:
      loss, report, grads = evaluate(spec, **own)
    else:
      loss, report, grads = annealing.evaluate(config, spec, k, evaluate)
    first = lax.axis_index("latent") * state.params.latents
    grads = crosscoder.project(grads, partition, first)
    scalars = {
      "train/loss": loss,
      "train/fvu": report.fvu,
      "train/l0": report.l0,
      "train/dead_frac": dead / config.latents,
      "train/auxk": report.auxk,
      "train/redone": report.redone.astype(jnp.float32),
      "train/lr": optimizer_lib.rate_at(
        optimizer_config, state.step, peak=peak, steps=steps
      ),
    }
    if config.recall_target is not None:
      scalars["train/topk_recall"] = report.recall
    if sparsity is not None:
      scalars["train/sparsity"] = sparsity
    if k is not None:
      scalars["train/k"] = k.astype(jnp.float32)
    threshold = state.threshold
    if threshold is not None:
      threshold = at_threshold.follow(threshold, report.smallest, state.step)
      scalars["train/threshold"] = threshold
    for source in range(config.sources if config.sources > 1 else 0):
      scalars[f"train/fvu_{source}"] = report.fvu_M[source]
    return Found(
      grads=grads,
      tokens_since_fired_F=_count(
        state.tokens_since_fired_F, report.fired_F, batch
      ),
      peak_rate=peak,
      grad_scale=objective.grad_scale(config, loss),
      scalars=scalars,
      threshold=threshold,
    )

  def update(state, found):
    params, opt_state, square = apply(
      found.grads,
      state.opt_state,
      state.params,
      found.peak_rate,
      found.grad_scale,
    )
    state = dataclasses.replace(
      state,
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      tokens_since_fired_F=found.tokens_since_fired_F,
      threshold=found.threshold,
    )
    return state, square

  def norm(square):
    if mesh.shape["latent"] > 1:
      square = lax.psum(square, "latent")
    return jnp.sqrt(square)

  return ShardStep(measure, update, norm)


def _count(tokens_F, fired_F, batch):
  """Tokens since each latent fired, at most the int32 maximum."""
  counted_F = jnp.minimum(tokens_F, _INT32_MAX - batch) + batch
  return jnp.where(fired_F, 0, counted_F)
