# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""JumpReLU, L1-ReLU and gated latents: values, their gradient, their charge.

A kind is two functions. The first sees a chunk of rows: it gives the values
that are decoded and the backward pass that goes with them. The second sees
sums over all rows, and says what sparsity costs and how it pulls.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from sae_jax.ops.topk_encode import reference
from sae_jax.sae import dictionary

Sums = Mapping[str, jax.Array]  # [F] arrays of this shard's latents
# Slopes of what was decoded -> gradient of w_enc · x, and sums over the rows.
Backward = Callable[..., tuple[jax.Array, Sums]]


@dataclasses.dataclass(frozen=True)
class Costs:
  """What the loss takes from this shard's latents.

  `norm_F` is Σ_m ‖d^m‖, summed over a crosscoder's sources (of others the norm
  of the decoder row): a value and what it adds to the reconstruction are
  charged alike, however the encoder and the decoder share its size.
  """

  sparsity: jax.Array  # λ, as it is at this step
  per_row: jax.Array  # 1 / rows of the batch, of all shards
  unit: jax.Array  # √(total variance), in which values are charged
  norm_F: jax.Array
  dead_F: jax.Array  # bool
  bandwidth: float
  target_l0: jax.Array | float | None
  pre_act: float

  @property
  def per_value(self) -> jax.Array:
    return self.sparsity * self.per_row / self.unit

  @property
  def per_gap(self) -> jax.Array:
    return self.pre_act * self.per_row / self.unit


@dataclasses.dataclass(frozen=True)
class Charge:
  """The sparsity terms of the loss, and their gradient where rows are not."""

  of_latents_F: jax.Array  # adds up over all latents of all shards
  of_all: jax.Array | float = 0.0  # is the same on every shard
  norm_F: jax.Array | None = None  # gradient of `Costs.norm_F`
  grads: Sums = dataclasses.field(default_factory=dict)  # by name in `Params`


@dataclasses.dataclass(frozen=True)
class Kind:
  """`forward(params, costs, dots_RF)` gives values [R, F], then `Backward`.

  Decoders of all values but the first are frozen: they get no gradient.
  `charge(params, costs, sums, l0)` takes sums over all rows of all shards.
  """

  sums: tuple[str, ...]  # that `Backward` gives besides those of b_enc
  forward: Callable[..., tuple[tuple[jax.Array, ...], Backward]]
  charge: Callable[..., Charge]


def _relu(params, costs, dots_RF):
  pre_RF = reference.add_bias(dots_RF, params.b_enc_F[None, :])
  values_RF = jax.nn.relu(pre_RF)

  def backward(slope_RF):
    pull_F = costs.per_value * costs.norm_F
    grad_RF = jnp.where(pre_RF > 0, slope_RF + pull_F[None, :], 0)
    return grad_RF, {
      "b_enc_F": jnp.sum(grad_RF, axis=0),
      "values_F": jnp.sum(values_RF, axis=0),
    }

  return (values_RF,), backward


def _charge_values(params, costs, sums, l0):
  """`λ Σ_j f_j Σ_m ‖d_j^m‖ / √(total variance)`, mean over rows.

  The L1 penalty of Anthropic's April 2024 update and, over sources, of
  Lindsey et al. 2024 (transformer-circuits.pub/2024/crosscoders).
  """
  del params, l0
  per_norm_F = costs.per_value * sums["values_F"]
  return Charge(of_latents_F=per_norm_F * costs.norm_F, norm_F=per_norm_F)


def _gated(params, costs, dots_RF):
  """Rajamanoharan et al. 2024 (arXiv:2404.16014), §3.2.

  `f = 1[π > 0] ⊙ ReLU(e^r ⊙ (w x) + b_mag)` with the gate `π = w x + b_gate`;
  the magnitudes' rows are the gate's times e^r. Besides f, ReLU(π) is decoded,
  which is how the gate learns: the step itself has no gradient.
  """
  gate_RF = reference.add_bias(dots_RF, params.b_enc_F[None, :])
  gain_1F = jnp.exp(params.log_gain_F)[None, :]
  scaled_RF = gain_1F * dots_RF
  size_RF = reference.add_bias(scaled_RF, params.b_mag_F[None, :])
  # A NaN of the gate reaches the loss through the second of the two.
  values_RF = jnp.where(gate_RF <= 0, 0, jax.nn.relu(size_RF))
  through_RF = jax.nn.relu(gate_RF)

  def backward(slope_RF, gate_slope_RF):
    open_RF = gate_RF > 0
    size_grad_RF = jnp.where(open_RF & (size_RF > 0), slope_RF, 0)
    pull_F = costs.per_value * costs.norm_F
    gate_grad_RF = jnp.where(open_RF, gate_slope_RF + pull_F[None, :], 0)
    return gate_grad_RF + gain_1F * size_grad_RF, {
      "b_enc_F": jnp.sum(gate_grad_RF, axis=0),
      "values_F": jnp.sum(through_RF, axis=0),
      "b_mag_F": jnp.sum(size_grad_RF, axis=0),
      "log_gain_F": jnp.sum(size_grad_RF * scaled_RF, axis=0),
    }

  return (values_RF, through_RF), backward


def _charge_gates(params, costs, sums, l0):
  """L1 of the gate, `λ Σ_j ReLU(π_j) Σ_m ‖d_j^m‖`, in units as `_relu`'s.

  The norms are frozen as the decoder of ReLU(π) is: with one of the two alone
  frozen the authors found it worse (their comment on the paper's post).
  """
  charge = _charge_values(params, costs, sums, l0)
  return Charge(
    of_latents_F=charge.of_latents_F,
    grads={name: sums[name] for name in ("b_mag_F", "log_gain_F")},
  )


def _jumprelu(params, costs, dots_RF):
  """Rajamanoharan et al. 2024 (arXiv:2407.14435), §3.

  `f = z H(z − θ)` of z = w x + b. The gradient with respect to z is that of
  what is there; θ gets the straight-through estimates

      ∂f/∂θ = −(θ/ε) K((z − θ)/ε)      ∂H(z − θ)/∂θ = −(1/ε) K((z − θ)/ε)

  with the rectangle K(u) = 1[|u| < 1/2]; H gives z none. θ >= 0 is not the
  exponential of a parameter, which Adam would move by e^rate a step at most.
  """
  pre_RF = reference.add_bias(dots_RF, params.b_enc_F[None, :])
  threshold_1F = params.threshold_F[None, :]
  over_RF = pre_RF - threshold_1F
  # As in `coding`: a NaN of either reaches the values.
  values_RF = jnp.where(over_RF <= 0, 0, jax.nn.relu(over_RF + threshold_1F))

  def backward(slope_RF):
    near_RF = jnp.abs(over_RF) < costs.bandwidth / 2
    below_RF = (over_RF < 0) & costs.dead_F[None, :]
    per_gap_F = costs.per_gap * costs.norm_F
    grad_RF = jnp.where(over_RF > 0, slope_RF, 0)
    grad_RF = jnp.where(below_RF, grad_RF - per_gap_F[None, :], grad_RF)
    rise_F = jnp.sum(jnp.where(near_RF, slope_RF, 0), axis=0)
    return grad_RF, {
      "b_enc_F": jnp.sum(grad_RF, axis=0),
      "rise_F": rise_F * params.threshold_F / costs.bandwidth,
      "near_F": jnp.sum(near_RF, axis=0, dtype=dots_RF.dtype),
      "below_F": jnp.sum(below_RF, axis=0, dtype=dots_RF.dtype),
      "gap_F": jnp.sum(jnp.where(below_RF, -over_RF, 0), axis=0),
    }

  return (values_RF,), backward


def _charge_count(params, costs, sums, l0):
  """`λ L0`, or `λ (L0 / target − 1)²` of the batch's mean L0; dead latents pay.

  The first is the loss of arXiv:2407.14435, §3. The second holds the batch's
  mean L0 at a target, so rows may differ (an appendix of that paper holds each
  row's; Gemma Scope 2 has a quadratic penalty too). The pre-activation loss,
  `p Σ_dead ReLU(θ_j − z_j) ‖d_j‖` in units as `_relu`'s, lets latents that
  never fire come back (Anthropic's January 2025 update,
  transformer-circuits.pub; here of dead ones only).
  """
  del params
  if costs.target_l0 is None:
    penalty, slope = costs.sparsity * l0, costs.sparsity
  else:
    excess = l0 / costs.target_l0 - 1
    penalty = costs.sparsity * excess * excess
    slope = 2 * costs.sparsity * excess / costs.target_l0
  count_F = sums["near_F"] * (costs.per_row / costs.bandwidth)
  gap_F = costs.per_gap * sums["gap_F"]
  lower_F = costs.per_gap * costs.norm_F * sums["below_F"]
  return Charge(
    of_latents_F=gap_F * costs.norm_F,
    of_all=penalty,
    norm_F=gap_F,
    grads={"threshold_F": lower_F - sums["rise_F"] - slope * count_F},
  )


KINDS = {
  "relu": Kind(("values_F",), _relu, _charge_values),
  "gated": Kind(("values_F", "b_mag_F", "log_gain_F"), _gated, _charge_gates),
  "jumprelu": Kind(
    ("rise_F", "near_F", "below_F", "gap_F"), _jumprelu, _charge_count
  ),
}


def encoder_pull(params: dictionary.Params, b_enc_F, sums: Sums) -> jax.Array:
  """Σ over rows of the gradient of w_enc · x, from those of the biases."""
  if params.log_gain_F is None:
    return b_enc_F
  return b_enc_F + jnp.exp(params.log_gain_F) * sums["b_mag_F"]
