# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loss where any number of latents may be active, with gradient.

JumpReLU, L1-ReLU and gated dictionaries (`dense_kinds`). All products are dense
and a chunk of rows at a time, forward and backward together: no more of [B, F]
is ever held. Runs on one device or as one shard inside `shard_map`, as
`losses` does. Across shards travel, in bytes of a step and a shard of R rows
and N latents,

    latent > 1   4 R D          x̂; twice that of gated ones
    data > 1     4 N (2 D + 6)  gradients and sums over rows, at most
    any mesh     4 (5 D + 16)   means, b_dec's gradient, scalars
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops import rows as rows_lib
from sae_jax.ops.topk_encode import reference
from sae_jax.sae import auxk, dense_kinds, dictionary, losses, skip
from sae_jax.sae import config as config_lib

_CPU_ROWS = 512
# Pre-activations of one chunk on accelerators, in elements: 256 MiB. A chunk
# reads and writes 20 bytes per weight pair for 10 products per row.
_CHUNK_ELEMENTS = 1 << 26


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseSpec(losses.CommonSpec):
  """What is fixed when the loss is compiled; see `SaeConfig`."""

  activation: str  # one of `dense_kinds.KINDS`
  sparsity: float
  target_l0: float | None
  bandwidth: float
  pre_act: float
  # A crosscoder's first ones, whose values are charged so much of what those of
  # the others are.
  shared_latents: int = 0
  shared_sparsity: float = 1.0


def sparsity_at(
  config: config_lib.SaeConfig,
  step: jax.typing.ArrayLike,
  *,
  peak: jax.typing.ArrayLike,
  steps: int,
) -> jax.Array:
  """λ of step `step` (from 0) of a run: it rises from peak / warm-up to peak.

  A linear warm-up keeps latents from dying before they mean something
  (Anthropic's April 2024 update, over the first twentieth of the run).
  """
  warmup = config.sparsity_warmup_steps
  warmup = max(1, steps // 20 if warmup is None else warmup)
  done = (jnp.asarray(step, jnp.float32) + 1) / warmup
  return jnp.multiply(peak, jnp.minimum(done, 1.0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Sums:
  """Sums over rows, of this shard's latents."""

  grads: auxk.LatentGrads
  of_kind: dict[str, jax.Array]  # see `dense_kinds.Kind.sums`
  square_error: jax.Array  # of all reconstructions
  active: jax.Array
  fired_F: jax.Array  # bool


def loss_and_grads(
  params: dictionary.Params,
  x_BD: jax.Array,
  dead_F: jax.Array,
  total_variance: jax.Array,
  spec: DenseSpec,
  *,
  target_BE: jax.Array | None = None,
  sparsity: jax.Array | None = None,
  target_l0: jax.Array | None = None,
  aux_coefficient: jax.Array | None = None,
) -> tuple[jax.Array, losses.Report, dictionary.Params]:
  """The loss, its report and its gradient.

  `mean_b ‖ŷ − y‖² / total_variance`, the kind's charge for sparsity (of gated
  ones also the error of the gate's own reconstruction) and AuxK times its
  coefficient. Values are charged in units of √total_variance, so that λ means
  the same at every width and scale. The gradient is that of dense autograd,
  with the straight-through estimates of `dense_kinds`.

  Args:
    params: this shard's parameters, float32 (or float64).
    x_BD: this shard's rows, scaled, in the parameters' dtype.
    dead_F: which of this shard's latents are dead (bool).
    total_variance: Σ of the scaled target's variance, over the data set.
    spec: constants, and the mesh axes when run inside `shard_map`.
    target_BE: y, what x is decoded to, scaled; None: x itself.
    sparsity: λ at this step; None: the spec's.
    target_l0: takes the place of the spec's, which is then not None.
    aux_coefficient: takes the place of the spec's, which is then not 0.

  Returns:
    The loss, the same on every shard, the report and the gradient.
  """
  rows = _psum(x_BD.shape[0], spec.data_axis)
  input_BD, wanted_BE = losses.encoder_inputs(params, x_BD, target_BE, spec)
  target_BE = x_BD if target_BE is None else target_BE
  costs = _costs(params, dead_F, rows, total_variance, spec, sparsity)
  if target_l0 is not None:
    costs = dataclasses.replace(costs, target_l0=target_l0)
  per_square = costs.per_row / total_variance

  sums, error_BE = _over_rows(
    params, input_BD, wanted_BE, costs, 2 * per_square, spec
  )
  (error_spread,) = losses.centred_square_sums([error_BE], rows, spec.data_axis)
  aux, grads = auxk.add_auxk(
    sums.grads,
    params,
    input_BD,
    -error_BE,
    dead_F,
    error_spread,
    spec,
    aux_coefficient,
  )
  report = losses.reconstruction_report(
    target_BE, error_BE, sums.active, sums.fired_F, spec
  )
  grads, of_kind, square_error = _psum(
    (grads, sums.of_kind, sums.square_error), spec.data_axis
  )
  charge = dense_kinds.KINDS[spec.activation].charge(
    params, costs, of_kind, report.l0
  )
  weight = spec.aux_coefficient if aux_coefficient is None else aux_coefficient
  charged = _psum(jnp.sum(charge.of_latents_F), spec.latent_axis)
  loss = square_error * per_square + charged + charge.of_all + weight * aux
  grads = _finish(
    params, grads, of_kind, charge, x_BD, 2 * per_square * error_BE, spec
  )
  return loss, dataclasses.replace(report, auxk=aux), grads


def _costs(params, dead_F, rows, total_variance, spec, sparsity):
  dtype = params.w_enc_FD.dtype
  sparsity = spec.sparsity if sparsity is None else sparsity
  norm_F1 = _source_norms(params.w_dec_FD, spec.sources)
  return dense_kinds.Costs(
    sparsity=jnp.asarray(sparsity, dtype),
    per_row=1 / jnp.asarray(rows, dtype),
    unit=jnp.sqrt(jnp.asarray(total_variance, dtype)),
    norm_F=_weights(norm_F1, spec) * jnp.sum(norm_F1, axis=(1, 2)),
    dead_F=dead_F,
    bandwidth=spec.bandwidth,
    target_l0=spec.target_l0,
    pre_act=spec.pre_act,
  )


def _weights(arrays_F, spec):
  """What values of latents are charged, relative to those of most, [F]."""
  first = 0
  if spec.latent_axis is not None:
    first = lax.axis_index(spec.latent_axis) * len(arrays_F)
  shared_F = first + jnp.arange(len(arrays_F)) < spec.shared_latents
  return jnp.where(shared_F, spec.shared_sparsity, 1).astype(arrays_F.dtype)


def _by_source(w_dec_FD, sources):
  return w_dec_FD.reshape(len(w_dec_FD), sources, -1)


def _source_norms(w_dec_FD, sources):
  """‖d_j^m‖, [F, M, 1]."""
  by_source = _by_source(w_dec_FD, sources)
  return jnp.linalg.norm(by_source, axis=2, keepdims=True)


def _over_rows(params, input_BD, wanted_BE, costs, slope, spec):
  """Sums over this shard's rows, and the error ŷ − y [B, E] of all latents."""
  kind = dense_kinds.KINDS[spec.activation]
  grads = auxk.LatentGrads(params.w_enc_FD, params.w_dec_FD, params.b_enc_F)
  nothing = jnp.zeros((), input_BD.dtype)
  zeros_F = jnp.zeros_like(params.b_enc_F)
  sums = _Sums(
    grads=jax.tree.map(jnp.zeros_like, grads),
    of_kind={name: zeros_F for name in kind.sums},
    square_error=nothing,
    active=nothing,
    fired_F=jnp.zeros(zeros_F.shape, bool),
  )
  chunk = max(8, _CHUNK_ELEMENTS // params.latents)
  return rows_lib.scan_chunks(
    _row_step(params, kind, costs, slope, spec),
    sums,
    _CPU_ROWS if spec.implementation == "cpu" else chunk,
    input_BD,
    wanted_BE,
  )


def _row_step(params, kind, costs, slope, spec):
  """Forward and backward of a chunk of rows (axis R): both need its [R, F]."""
  wide = params.w_enc_FD.dtype
  dtype = spec.matmul_dtype or wide
  enc_FD, dec_FE = params.w_enc_FD.astype(dtype), params.w_dec_FD.astype(dtype)

  def product(a, b, contract):
    return lax.dot_general(
      a.astype(dtype),
      b.astype(dtype),
      (contract, ((), ())),
      precision=lax.Precision.HIGHEST,
      preferred_element_type=wide,
    )

  def add_rows(sums, input_RD, wanted_RE):
    dots_RF = reference.products(input_RD.astype(dtype), enc_FD)
    values, backward = kind.forward(params, costs, dots_RF)
    decoded = [product(v_RF, dec_FE, ((1,), (0,))) for v_RF in values]
    errors = [o_RE - wanted_RE for o_RE in _psum(decoded, spec.latent_axis)]
    slopes = [slope * e_RE for e_RE in errors]
    grad_RF, of_kind = backward(
      *(product(s_RE, dec_FE, ((1,), (1,))) for s_RE in slopes)
    )
    squares = [jnp.sum(jnp.sum(e_RE * e_RE, axis=1)) for e_RE in errors]
    active_RF = values[0] > 0
    added = _Sums(
      grads=auxk.LatentGrads(
        w_enc_FD=product(grad_RF, input_RD, ((0,), (0,))),
        w_dec_FD=product(values[0], slopes[0], ((0,), (0,))),
        b_enc_F=of_kind["b_enc_F"],
      ),
      of_kind={name: of_kind[name] for name in kind.sums},
      square_error=functools.reduce(jnp.add, squares),
      active=jnp.sum(active_RF, dtype=jnp.int32).astype(wide),
      fired_F=jnp.any(active_RF, axis=0),
    )
    return jax.tree.map(jnp.add, sums, added), errors[0]

  return add_rows


def _finish(params, grads, of_kind, charge, x_BD, slope_BE, spec):
  """The whole gradient; what does not belong to a latent has its own here."""
  w_dec_FD = grads.w_dec_FD
  if charge.norm_F is not None:
    grad_F = _weights(charge.norm_F, spec) * charge.norm_F
    w_dec_FD = w_dec_FD + _norm_grads(params, grad_F, spec.sources)
  b_dec_E = _psum(jnp.sum(slope_BE, axis=0), spec.data_axis)
  if spec.centred:
    pull_F = dense_kinds.encoder_pull(params, grads.b_enc_F, of_kind)
    encoder_D = jnp.dot(
      pull_F, params.w_enc_FD, precision=lax.Precision.HIGHEST
    )
    b_dec_E = b_dec_E - _psum(encoder_D, spec.latent_axis)
  skip_DE = None
  if params.w_skip_DE is not None:
    skip_DE = skip.gradient(x_BD, slope_BE, spec)
  return dictionary.Params(
    w_enc_FD=grads.w_enc_FD,
    w_dec_FD=w_dec_FD,
    b_enc_F=grads.b_enc_F,
    b_dec_D=b_dec_E,
    w_skip_DE=skip_DE,
    **charge.grads,
  )


def _norm_grads(params, grad_F, sources):
  """Of Σ_m ‖d^m‖, times `grad_F`; zero where a norm is."""
  by_source = _by_source(params.w_dec_FD, sources)
  norms = _source_norms(params.w_dec_FD, sources)
  unit = jnp.where(norms > 0, by_source / jnp.where(norms > 0, norms, 1), 0)
  return (grad_F[:, None, None] * unit).reshape(params.w_dec_FD.shape)


def _psum(tree, axis_name):
  return tree if axis_name is None else lax.psum(tree, axis_name)
