# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loss of TopK and BatchTopK with AuxK, and its sparse gradient.

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

BatchTopK counts for the whole batch: 480 bytes instead of 4 R (122 + latent) to
find its threshold, and as many again if a row has more pairs than most; if the
batch is done densely, R (D + 1) once more. Of G nested reconstructions (twice
the threshold's counts with multi-TopK) G R D instead of R D travel.
Counts are 15 for each of 8 digits of a row's k-th value (32 of one bit each in
AuxK), one or two more, and the ties of every shard.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.sae import auxk, crosscoder, dictionary, outcomes, skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonSpec:
  """What is fixed when a loss is compiled, of sparse and dense kinds."""

  aux_k: int
  aux_coefficient: float
  matmul_dtype: str | None = None  # None: the dtype of the inputs
  implementation: str | None = None
  centred: bool = True  # the encoder is given x − b_dec; False: x itself
  sources: int = 1  # of a crosscoder
  data_axis: str | None = None  # mesh axis of the rows
  latent_axis: str | None = None  # mesh axis of the latents

  @property
  def axes(self) -> tuple[str, ...]:
    """The mesh axes that something is split over."""
    both = (self.data_axis, self.latent_axis)
    return tuple(axis for axis in both if axis is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossSpec(CommonSpec):
  """What is fixed when the loss of TopK or BatchTopK is compiled."""

  k: int
  activation: str = "topk"  # or "batch_topk"
  prefixes: tuple[int, ...] = ()  # of Matryoshka dictionaries, see `nested`
  multi_topk: float = 0.0  # weight of the reconstruction by 4 k latents
  recall_target: float | None = None  # None: exact top-k


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Report:
  """What a loss evaluation tells besides the loss; scalars are over all shards.

  `fvu` is Σ‖ŷ − y‖² / Σ‖y − ȳ‖² with the batch's own mean, `l0` the mean number
  of values > 0 per row, `auxk` the AuxK term before its coefficient; `redone`
  and `recall` are those of `selection.Selection`. Of a crosscoder `fvu_M` is
  the same of every source, see `crosscoder.fvu_by_source`.
  """

  fvu: jax.Array
  l0: jax.Array
  auxk: jax.Array
  redone: jax.Array
  recall: jax.Array
  fired_F: jax.Array  # bool: this shard's latents with a value > 0 on some row
  fvu_M: jax.Array | None = None
  smallest: jax.Array | None = None  # BatchTopK: the least value > 0, or inf


def _psum(tree, axis_name):
  return tree if axis_name is None else lax.psum(tree, axis_name)


def _square_sum(x_BD):
  # Per row first: two short sums round less than one over all elements.
  return jnp.sum(jnp.sum(x_BD * x_BD, axis=1))


def centred_square_sums(arrays, rows, axis_name):
  """Σ‖a − ā‖² over all rows of every [B, E] array, in two passes."""
  sums = _psum([jnp.sum(a_BE, axis=0) for a_BE in arrays], axis_name)
  centred = [
    _square_sum(a_BE - (s_E / rows)[None, :])
    for a_BE, s_E in zip(arrays, sums, strict=True)
  ]
  return _psum(centred, axis_name)


def encoder_inputs(
  params: dictionary.Params,
  x_BD: jax.Array,
  target_BE: jax.Array | None,
  spec: CommonSpec,
) -> tuple[jax.Array, jax.Array]:
  """What the encoder is given, and what the sum over latents should be."""
  centred_BE = (x_BD if target_BE is None else target_BE) - params.b_dec_D[None]
  wanted_BE = centred_BE
  if params.w_skip_DE is not None:
    wanted_BE = centred_BE - skip.output(x_BD, params.w_skip_DE, spec)
  if not spec.centred:
    return x_BD, wanted_BE
  if target_BE is not None:
    return x_BD - params.b_dec_D[None, :], wanted_BE
  return centred_BE, wanted_BE


def loss_and_grads(
  params: dictionary.Params,
  x_BD: jax.Array,
  dead_F: jax.Array,
  total_variance: jax.Array,
  spec: LossSpec,
  *,
  target_BE: jax.Array | None = None,
  k: jax.Array | None = None,
  aux_coefficient: jax.Array | None = None,
) -> tuple[jax.Array, Report, dictionary.Params]:
  """The loss, its report and its gradient; see `sae_loss`.

  `k` (at most the spec's) and `aux_coefficient` (the spec's is not 0) take
  the place of the spec's numbers, for programs that compute several losses.
  """
  rows = _psum(x_BD.shape[0], spec.data_axis)
  inputs_BD, wanted_BE = encoder_inputs(params, x_BD, target_BE, spec)
  target_BE = x_BD if target_BE is None else target_BE
  per_row = 1 / (rows * total_variance)
  found, redone, recall = outcomes.of_rows(
    params, inputs_BD, wanted_BE, per_row, spec, k
  )
  square_error, main_square_error, active = _psum(
    (found.square_error, found.main_square_error, found.active), spec.data_axis
  )
  active = _psum(active, spec.latent_axis)
  target_spread, error_spread = centred_square_sums(
    [target_BE, found.error_BE], rows, spec.data_axis
  )
  aux, grads = auxk.add_auxk(
    found.grads,
    params,
    inputs_BD,
    -found.error_BE,
    dead_F,
    error_spread,
    spec,
    aux_coefficient,
  )
  smallest = found.smallest
  for axis in spec.axes if smallest is not None else ():
    smallest = lax.pmin(smallest, axis)
  weight = spec.aux_coefficient if aux_coefficient is None else aux_coefficient
  # A NaN must not be hidden by an active set that is empty because of it.
  loss = square_error * per_row + weight * aux
  report = Report(
    fvu=main_square_error / target_spread,
    l0=active / rows,
    auxk=aux,
    redone=redone,
    recall=recall,
    fired_F=_psum(found.fired_F, spec.data_axis) > 0,
    smallest=smallest,
    fvu_M=crosscoder.fvu_by_source(
      target_BE, found.error_BE, spec.sources, spec.data_axis
    ),
  )
  return loss, report, _finish(grads, params, x_BD, found.slope_BE, spec)


def reconstruction_report(
  target_BE: jax.Array,
  error_BE: jax.Array,
  active: jax.Array,
  fired_F: jax.Array,
  spec: CommonSpec,
) -> Report:
  """Of an error ŷ − y, a shard's number of active pairs, and what fired."""
  rows = _psum(target_BE.shape[0], spec.data_axis)
  square_error, active, fired_F = _psum(
    (_square_sum(error_BE), active, fired_F.astype(jnp.int32)), spec.data_axis
  )
  (spread,) = centred_square_sums([target_BE], rows, spec.data_axis)
  return Report(
    fvu=square_error / spread,
    l0=_psum(active, spec.latent_axis) / rows,
    auxk=jnp.zeros(()),
    redone=jnp.zeros((), jnp.int32),
    recall=jnp.ones(()),
    fired_F=fired_F > 0,
    fvu_M=crosscoder.fvu_by_source(
      target_BE, error_BE, spec.sources, spec.data_axis
    ),
  )


def _finish(grads, params, x_BD, slope_BE, spec):
  """Sums over rows; what does not belong to a latent has its gradient here.

  That of `b_dec` comes through the decoder, and the encoder if it is centred.
  """
  grads, b_dec_E = _psum((grads, jnp.sum(slope_BE, axis=0)), spec.data_axis)
  if spec.centred:
    encoder_D = jnp.dot(
      grads.b_enc_F, params.w_enc_FD, precision=lax.Precision.HIGHEST
    )
    b_dec_E = b_dec_E - _psum(encoder_D, spec.latent_axis)
  skip_DE = None
  if params.w_skip_DE is not None:
    skip_DE = skip.gradient(x_BD, slope_BE, spec)
  return dictionary.Params(
    w_enc_FD=grads.w_enc_FD,
    w_dec_FD=grads.w_dec_FD,
    b_enc_F=grads.b_enc_F,
    b_dec_D=b_dec_E,
    w_skip_DE=skip_DE,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def sae_loss(
  params: dictionary.Params,
  x_BD: jax.Array,
  dead_F: jax.Array,
  total_variance: jax.Array,
  spec: LossSpec,
  target_BE: jax.Array | None = None,
) -> tuple[jax.Array, Report]:
  """Reconstruction error plus AuxK, differentiable in `params` only.

  `mean_b ‖ŷ − y‖² / total_variance + aux_coefficient · auxk`. The first term is
  the fraction of the data set's variance that is left unexplained, as in Gao
  et al. 2024 (their code divides by the variance of a sample); the second is
  App. A.2, see `auxk.add_auxk`. The gradient is that of dense autograd, at
  O(B·K·D) cost: nothing but the gradient itself is kept from the forward pass.

  Args:
    params: this shard's parameters, float32 (or float64).
    x_BD: this shard's rows, scaled, in the parameters' dtype.
    dead_F: which of this shard's latents AuxK may use (bool).
    total_variance: Σ_E of the scaled targets' variance, over the data set.
    spec: constants, and the mesh axes when run inside `shard_map`.
    target_BE: y, what x is decoded to, scaled; None: x itself.

  Returns:
    The loss, the same on every shard, and the `Report`.
  """
  loss, report, _ = loss_and_grads(
    params, x_BD, dead_F, total_variance, spec, target_BE=target_BE
  )
  return loss, report


def _forward(params, x_BD, dead_F, total_variance, spec, target_BE=None):
  loss, report, grads = loss_and_grads(
    params, x_BD, dead_F, total_variance, spec, target_BE=target_BE
  )
  return (loss, report), grads


def _backward(spec, grads, cotangents):
  del spec
  grad_loss, _ = cotangents
  grads = jax.tree.map(lambda g: grad_loss * g, grads)
  return grads, None, None, None, None


sae_loss.defvjp(_forward, _backward)
