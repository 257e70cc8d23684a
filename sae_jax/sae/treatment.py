# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What is done to raw activations before they are trained on, and undone.

A dictionary is trained on treated rows; `fold` gives the one that takes raw
rows and is the same function.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.sae import dictionary


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Treatment:
  """(x − shift) · scale."""

  scale: jax.Array  # float32 > 0: one number, or one for each dimension, [D]
  shift_D: jax.Array | None = None  # float32; None: 0


def apply(treatment: Treatment, x_BD: jax.Array) -> jax.Array:
  """Treated rows, float32, from raw ones of any float dtype."""
  x_BD = x_BD.astype(jnp.float32)
  if treatment.shift_D is not None:
    x_BD = x_BD - treatment.shift_D[None, :]
  return x_BD * _row(treatment.scale)


def gain(treatment: Treatment) -> jax.Array:
  """One number for the scales: that of a dimension of mean square size.

  With scales 1/σ it is 1/sqrt(mean σ²). Any number would do in `fold`; with
  this one folded decoder rows have norms around 1.
  """
  if not treatment.scale.ndim:
    return treatment.scale
  return 1 / jnp.sqrt(jnp.mean(1 / jnp.square(treatment.scale)))


def fold(
  params: dictionary.Params,
  inputs: Treatment,
  outputs: Treatment | None = None,
  *,
  unit_rows: bool = False,
) -> dictionary.Params:
  """Parameters for raw rows x from those trained on treated ones.

  With x' = (x − m) s, an encoder that subtracts b_dec has
  `w_enc (x' − b_dec) = (w_enc s) (x − (b_dec / s + m))`, and the decoder's
  output is `(Σ v w_dec + b_dec) / s + m = Σ v (w_dec / s) + (b_dec / s + m)`.
  Values v, latents' biases and thresholds are divided by one number g > 0, the
  `gain`, so the same latents are active: `w_enc s / g`, `w_dec g / s`. With one
  scale for all dimensions g = s, and both matrices stay. With one for each,
  decoder rows are not of norm 1 any more.

  Args:
    params: trained on treated rows.
    inputs: how rows were treated.
    outputs: how the targets of a transcoder were treated, whose encoder does
      not subtract b_dec: `w_enc x' + b_enc = (w_enc s) x + (b_enc − w_enc (s
      m))`. None: it is no transcoder.
    unit_rows: give decoder rows norm 1 again, and their lengths to the encoder.
      The same function where every latent decides for itself whether it is
      active; a top-k would choose others.
  """
  if outputs is None:
    if inputs.shift_D is None and not inputs.scale.ndim:
      return dictionary.fold_scale(params, inputs.scale)
    outputs = inputs
    if inputs.scale.ndim:
      w_enc_FD = params.w_enc_FD * (inputs.scale / gain(inputs))[None, :]
      params = dataclasses.replace(params, w_enc_FD=w_enc_FD)
  else:
    params = _raw_encoder(params, inputs, outputs)
  b_dec_E = params.b_dec_D / outputs.scale
  if outputs.shift_D is not None:
    b_dec_E = b_dec_E + outputs.shift_D
  params = dictionary.fold_scale(params, gain(outputs))
  params = dataclasses.replace(params, b_dec_D=b_dec_E)
  if not outputs.scale.ndim:
    return params
  w_dec_FD = params.w_dec_FD * (gain(outputs) / outputs.scale)[None, :]
  params = dataclasses.replace(params, w_dec_FD=w_dec_FD)
  return to_unit_rows(params) if unit_rows else params


def to_unit_rows(params: dictionary.Params) -> dictionary.Params:
  """Decoder rows of norm 1, with their lengths in what gives the values."""
  norm_F = jnp.linalg.norm(params.w_dec_FD, axis=1)

  def longer(array_F: Any) -> Any:
    return None if array_F is None else array_F * norm_F

  return dataclasses.replace(
    params,
    w_enc_FD=params.w_enc_FD * norm_F[:, None],
    w_dec_FD=params.w_dec_FD / norm_F[:, None],
    b_enc_F=longer(params.b_enc_F),
    threshold_F=longer(params.threshold_F),
    b_mag_F=longer(params.b_mag_F),
  )


def _raw_encoder(params, inputs, outputs):
  """A transcoder's, with biases that the targets' gain is still missing in."""
  w_enc_FD = params.w_enc_FD * _row(inputs.scale)
  w_skip_DE, b_dec_E = params.w_skip_DE, params.b_dec_D
  if w_skip_DE is not None:
    w_skip_DE = w_skip_DE * _row(inputs.scale).T
  b_enc_F = params.b_enc_F
  if inputs.shift_D is not None:
    b_enc_F = b_enc_F - _dot(w_enc_FD, inputs.shift_D)
    if w_skip_DE is not None:
      b_dec_E = b_dec_E - _dot(inputs.shift_D, w_skip_DE)
  return dataclasses.replace(
    params,
    w_enc_FD=w_enc_FD / gain(outputs),
    b_enc_F=b_enc_F,
    b_dec_D=b_dec_E,
    w_skip_DE=None if w_skip_DE is None else w_skip_DE / _row(outputs.scale),
  )


def _row(scale):
  """One number as it is; of one for each dimension [1, D]."""
  return scale[None, :] if scale.ndim else scale


def _dot(a, b):
  return jnp.dot(a, b, precision=lax.Precision.HIGHEST)
