# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loss of a TopK autoencoder with AuxK, and its sparse gradient.

Runs on one device, or as one shard inside `shard_map` where rows are split over
a data axis and latents over a latent axis. Across shards travel counts, one
reconstruction, sums over rows, and weight gradients over the data axis; never
weights, [B, F] or [B, K, D]. What a shard of R rows and N latents gets from
sums and gathers over shards is, in bytes of a step, at most

    latent > 1   4 R (D + 122 + latent)   x̂; counts that find the k-th value
    data > 1     4 N (2 D + 2)            gradients; which latents fired
    any mesh     4 (4 D + 16)             means, b_dec's gradient, scalars
    redone       4 R (122 + latent)       those counts again, if latent > 1
    AuxK         4 R (D + 33 + latent)    if a latent is dead and latent > 1

Counts are 15 for each of 8 digits of a row's k-th value (32 of one bit each in
AuxK), one or two more, and the ties of every shard.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax import ops
from sae_jax.sae import auxk, dictionary, selection


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSpec:
  """What is fixed when the loss is compiled."""

  k: int
  aux_k: int
  aux_coefficient: float
  matmul_dtype: str | None = None  # None: the dtype of the inputs
  implementation: str | None = None
  recall_target: float | None = None  # None: exact top-k
  data_axis: str | None = None  # mesh axis of the rows
  latent_axis: str | None = None  # mesh axis of the latents

  @property
  def axes(self) -> tuple[str, ...]:
    """The mesh axes that something is split over."""
    both = (self.data_axis, self.latent_axis)
    return tuple(axis for axis in both if axis is not None)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Report:
  """What a loss evaluation tells besides the loss; scalars are over all shards.

  `fvu` is Σ‖x̂ − x‖² / Σ‖x − x̄‖² with the batch's own mean, `l0` the mean number
  of values > 0 per row, `auxk` the AuxK term before its coefficient; `redone`
  and `recall` are those of `selection.Selection`.
  """

  fvu: jax.Array
  l0: jax.Array
  auxk: jax.Array
  redone: jax.Array
  recall: jax.Array
  fired_F: jax.Array  # bool: this shard's latents with a value > 0 on some row


def _psum(tree, axis_name):
  return tree if axis_name is None else lax.psum(tree, axis_name)


def _square_sum(x_BD):
  # Per row first: two short sums round less than one over all elements.
  return jnp.sum(jnp.sum(x_BD * x_BD, axis=1))


def _centred_square_sums(arrays, rows, axis_name):
  """Σ‖a − ā‖² over all rows of every [B, D] array, in two passes."""
  sums = _psum([jnp.sum(a_BD, axis=0) for a_BD in arrays], axis_name)
  centred = [
    _square_sum(a_BD - (s_D / rows)[None, :])
    for a_BD, s_D in zip(arrays, sums, strict=True)
  ]
  return _psum(centred, axis_name)


def _residual(params, values_BK, indices_BK, target_BD, spec):
  """x̂ − x of all shards; its products with decoder rows if they are free."""
  arrays = (values_BK, indices_BK, params.w_dec_FD)
  how = {"implementation": spec.implementation}
  if spec.latent_axis is None:
    return ops.residual(*arrays, target_BD, **how)
  decoded_BD = lax.psum(ops.sparse_decode(*arrays, **how), spec.latent_axis)
  return decoded_BD - target_BD, None


def loss_and_grads(
  params: dictionary.Params,
  x_BD: jax.Array,
  dead_F: jax.Array,
  total_variance: jax.Array,
  spec: LossSpec,
  *,
  k: jax.Array | None = None,
  aux_coefficient: jax.Array | None = None,
) -> tuple[jax.Array, Report, dictionary.Params]:
  """The loss, its report and its gradient; see `sae_loss`.

  `k` (at most the spec's) and `aux_coefficient` (the spec's is not 0) take
  the place of the spec's numbers, for programs that compute several losses.
  """
  rows = _psum(x_BD.shape[0], spec.data_axis)
  latents = params.latents
  centred_BD = x_BD - params.b_dec_D[None, :]
  chosen = selection.select(params, centred_BD, spec, k)
  values_BK, indices_BK = chosen.values_BK, chosen.indices_BK
  active_BK = values_BK > 0

  error_BD, dots_BK = _residual(params, values_BK, indices_BK, centred_BD, spec)

  square_error, active = _psum(
    (_square_sum(error_BD), jnp.sum(active_BK)), spec.data_axis
  )
  active = _psum(active, spec.latent_axis)
  x_spread, error_spread = _centred_square_sums(
    [x_BD, error_BD], rows, spec.data_axis
  )
  per_row = 1 / (rows * total_variance)
  grad_BD = (2 * per_row) * error_BD

  grads = auxk.LatentGrads(
    *ops.weight_grads(
      values_BK,
      indices_BK,
      params.w_dec_FD,
      centred_BD,
      grad_BD,
      None if dots_BK is None else (2 * per_row) * dots_BK,
      implementation=spec.implementation,
    )
  )
  aux, grads = auxk.add_auxk(
    grads,
    params,
    centred_BD,
    -error_BD,
    dead_F,
    error_spread,
    spec,
    aux_coefficient,
  )
  weight = spec.aux_coefficient if aux_coefficient is None else aux_coefficient
  # A NaN must not be hidden by an active set that is empty because of it.
  loss = square_error * per_row + weight * aux

  fired_F = jnp.zeros((latents,), jnp.int32)
  fired_F = fired_F.at[indices_BK].max(active_BK.astype(jnp.int32))
  report = Report(
    fvu=square_error / x_spread,
    l0=active / rows,
    auxk=aux,
    redone=chosen.redone,
    recall=chosen.recall,
    fired_F=_psum(fired_F, spec.data_axis) > 0,
  )
  return loss, report, _finish(grads, params, grad_BD, spec)


def _finish(grads, params, grad_BD, spec):
  """Sums over rows, and `b_dec`'s gradient through decoder and encoder."""
  grads, decoder_D = _psum((grads, jnp.sum(grad_BD, axis=0)), spec.data_axis)
  encoder_D = jnp.dot(
    grads.b_enc_F, params.w_enc_FD, precision=lax.Precision.HIGHEST
  )
  return dictionary.Params(
    w_enc_FD=grads.w_enc_FD,
    w_dec_FD=grads.w_dec_FD,
    b_enc_F=grads.b_enc_F,
    b_dec_D=decoder_D - _psum(encoder_D, spec.latent_axis),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def sae_loss(
  params: dictionary.Params,
  x_BD: jax.Array,
  dead_F: jax.Array,
  total_variance: jax.Array,
  spec: LossSpec,
) -> tuple[jax.Array, Report]:
  """Reconstruction error plus AuxK, differentiable in `params` only.

  `mean_b ‖x̂ − x‖² / total_variance + aux_coefficient · auxk`. The first term is
  the fraction of the data set's variance that is left unexplained, as in Gao
  et al. 2024 (their code divides by the variance of a sample); the second is
  App. A.2, see `auxk.add_auxk`. The gradient is that of dense autograd, at
  O(B·K·D) cost: nothing but the gradient itself is kept from the forward pass.

  Args:
    params: this shard's parameters, float32 (or float64).
    x_BD: this shard's rows, scaled, in the parameters' dtype.
    dead_F: which of this shard's latents AuxK may use (bool).
    total_variance: Σ_D of the scaled activations' variance, over the data set.
    spec: constants, and the mesh axes when run inside `shard_map`.

  Returns:
    The loss, the same on every shard, and the `Report`.
  """
  loss, report, _ = loss_and_grads(params, x_BD, dead_F, total_variance, spec)
  return loss, report


def _forward(params, x_BD, dead_F, total_variance, spec):
  loss, report, grads = loss_and_grads(
    params, x_BD, dead_F, total_variance, spec
  )
  return (loss, report), grads


def _backward(spec, grads, cotangents):
  del spec
  grad_loss, _ = cotangents
  return jax.tree.map(lambda g: grad_loss * g, grads), None, None, None


sae_loss.defvjp(_forward, _backward)
