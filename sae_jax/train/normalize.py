# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How raw activations are treated, from statistics of a store's rows.

Rows of outlying norm, such as attention sinks, are not here to be looked after:
`harvest`'s `outlier_norm_multiple` keeps them out of the store, for all hooks
if they are outliers at one.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors
from sae_jax.sae import treatment as treatment_lib

KINDS = ("scale", "centre", "standardize")

# Of the root mean square deviation: what a dimension's counts as at least. A
# dimension that hardly varies would else be as loud as the others, and what
# varies in it is the store's rounding.
_LEAST_DEVIATION = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
  """Of raw rows."""

  mean_D: np.ndarray
  variance_D: np.ndarray
  mean_square_norm: float  # mean ‖x‖²


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
  """A hook's rows, as far as a first state depends on them."""

  sample_ND: np.ndarray  # raw; the same on every process
  treatment: treatment_lib.Treatment  # float64 on the host
  total_variance: float  # Σ_D of treated rows' variance, over the data set

  @property
  def width(self) -> int:
    return self.sample_ND.shape[1]


def activation_scale(d_model: int, mean_square_norm: float) -> float:
  """`sqrt(D) / sqrt(mean ‖x‖²)`: scaled rows have a mean square norm of D.

  Raises:
    errors.InputError: the norm is not positive and finite.
  """
  if not (math.isfinite(mean_square_norm) and mean_square_norm > 0):
    raise errors.InputError(
      f"mean square norm of the activations is {mean_square_norm}; need a"
      " finite number > 0: the store holds no usable rows"
    )
  return math.sqrt(d_model / mean_square_norm)


def measure(x_ND: np.ndarray) -> Moments:
  """The moments of a sample, summed in float64."""
  x_ND = x_ND.astype(np.float64)
  return Moments(
    mean_D=x_ND.mean(0),
    variance_D=x_ND.var(0),
    mean_square_norm=float(np.mean(np.sum(x_ND * x_ND, axis=1))),
  )


def treat(
  kind: str, sample_ND: np.ndarray, moments: Moments, *, sources: int = 1
) -> Rows:
  """How rows with these moments are treated.

      scale        x · s, with one s for all dimensions
      centre       (x − mean) · s
      standardize  (x − mean) / deviation, of every dimension

  s is such that the mean square norm is D. Of a crosscoder each of the
  `sources`, which lie side by side, has an s of its own.

  Args:
    kind: of `KINDS`.
    sample_ND: raw rows.
    moments: of the data set.
    sources: how many parts of one width the rows have.

  Raises:
    errors.InputError: rows that are not finite, are missing, or do not vary.
  """
  sample_ND = np.asarray(sample_ND, np.float32)
  total = float(moments.variance_D.sum())
  _check(sample_ND, total)
  if kind == "scale" and sources == 1:
    # By the store's own figure, which the variances do not give to the bit.
    one = activation_scale(sample_ND.shape[1], moments.mean_square_norm)
    return Rows(
      sample_ND=sample_ND,
      treatment=_on_host(np.asarray(one), None),
      total_variance=total * one * one,
    )
  mean_D = np.asarray(moments.mean_D, np.float64)
  square_D = np.asarray(moments.variance_D, np.float64)
  if kind == "standardize":
    least = _LEAST_DEVIATION**2 * square_D.mean()
    scale = 1 / np.sqrt(np.maximum(square_D, least))
  else:
    if kind == "scale":
      square_D = square_D + mean_D * mean_D
    parts = square_D.reshape(sources, -1)
    scale_M = [activation_scale(parts.shape[1], part.sum()) for part in parts]
    scale = np.repeat(scale_M, parts.shape[1])
    if sources == 1:
      scale = np.asarray(scale_M[0])
  return Rows(
    sample_ND=sample_ND,
    treatment=_on_host(scale, None if kind == "scale" else mean_D),
    total_variance=float(np.sum(moments.variance_D * scale * scale)),
  )


def _on_host(scale: Any, shift_D: Any) -> treatment_lib.Treatment:
  return treatment_lib.Treatment(scale, shift_D)


def abstract(
  kind: str, width: int, *, sources: int = 1
) -> treatment_lib.Treatment:
  """Shapes and dtypes of a treatment."""

  def zeros(*shape) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  each = kind == "standardize" or sources > 1
  return treatment_lib.Treatment(
    zeros(width) if each else zeros(), None if kind == "scale" else zeros(width)
  )


def treated(
  treatment: treatment_lib.Treatment, point_D: np.ndarray
) -> np.ndarray:
  """A raw point or rows after a treatment, on the host, float32."""
  if treatment.shift_D is not None:
    point_D = point_D - treatment.shift_D
  return np.asarray(point_D * np.float32(treatment.scale), np.float32)


def _check(sample_ND, total_variance):
  if sample_ND.ndim != 2 or not len(sample_ND):
    raise errors.InputError(
      f"sample of shape {sample_ND.shape}: need [N, D] with N >= 1"
    )
  if not np.isfinite(sample_ND).all():
    raise errors.InputError(
      "the sample of activations holds NaN or infinity; run `sae-jax verify`"
      " on the store"
    )
  if not (math.isfinite(total_variance) and total_variance > 0):
    raise errors.InputError(
      f"total variance of the activations is {total_variance}; need a finite"
      " number > 0: all rows of the store are equal"
    )
