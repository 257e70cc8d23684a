# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Parameters to train on from a dictionary for raw rows: `fold`'s inverse.

Of arrays that are memory maps, a host reads the rows of its own devices only.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from sae_jax import errors
from sae_jax.sae import dictionary, init
from sae_jax.sae import treatment as treatment_lib


def from_dictionary(
  source: dictionary.Sae,
  inputs: treatment_lib.Treatment,
  mesh: jax.sharding.Mesh,
  *,
  outputs: treatment_lib.Treatment | None = None,
  wanted: dictionary.Params | None = None,
) -> dictionary.Params:
  """Parameters for treated rows of a dictionary that takes raw ones.

  The inverse of `treatment.fold`. Decoder rows that are not of norm 1 (to 1e-5;
  the others stay what they are to the bit) are made so, with what they lose
  given to the encoder: a latent adds the same to the reconstruction, wherever
  it is active. What the source's encoder subtracts and training's does not goes
  into its bias, and the other way round.

  Args:
    source: for raw rows.
    inputs: how rows are treated, on the host.
    mesh: `(sae, data, latent)`.
    outputs: how a transcoder's targets are treated; None: it is none.
    wanted: which arrays are trained, abstract; None: those of TopK. Thresholds
      that are not among them are left out; a skip that the source lacks is 0.

  Raises:
    errors.InputError: a decoder row is zero or a weight is not finite, it is
      another kind of dictionary, or the latents do not divide evenly over the
      mesh.
  """
  init.check_shards(source.latents, mesh.shape["latent"])
  _check_kind(source, wanted)
  parts = _Parts(source, inputs, outputs)
  shapes = {name: a.shape for name, a in _arrays(source.params).items()}
  if wanted is not None and wanted.w_skip_DE is not None:
    shapes["w_skip_DE"] = wanted.w_skip_DE.shape
  shardings = _arrays(init.params_sharding(mesh, wanted))
  made = {
    name: jax.make_array_from_callback(
      shapes[name], sharding, getattr(parts, name)
    )
    for name, sharding in shardings.items()
  }
  return dictionary.Params(**made)


def _arrays(params: Any) -> dict[str, Any]:
  """What there is, by name."""
  values = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
  return {name: value for name, value in values.items() if value is not None}


class _Parts:
  """Parts of the arrays for treated rows, by name and index.

  With scales s of the inputs, scales t of the outputs and their gain g, and n
  the length of a row w_dec · t / g: w_enc · (g / s) n, w_dec · (t / g) / n, and
  g n times what latents have. All but n are 1 or g where there is one scale.
  """

  def __init__(self, source, inputs, outputs):
    self._raw: Any = jax.tree.map(np.asarray, source.params)
    self._in_scale, in_mean = _host(inputs)
    self._out_scale, self._out_mean = _host(outputs or inputs)
    self._gain = _gain(self._out_scale)
    self._skipped_mean = None if self._raw.w_skip_DE is None else in_mean
    # What training's encoder subtracts from raw rows, and the source's.
    ours = self._raw.b_dec_D if outputs is None else in_mean
    theirs = self._raw.b_dec_D if source.centred else None
    self._moved_D = None
    if ours is not theirs:
      zero_D = np.zeros(source.d_model)
      self._moved_D = (zero_D if ours is None else ours) - (
        zero_D if theirs is None else theirs
      )

  def w_enc_FD(self, index) -> np.ndarray:
    rows_ND = _part(self._raw.w_enc_FD, index) * (self._gain / self._in_scale)
    return rows_ND * self._lengths(index)[:, None]

  def w_dec_FD(self, index) -> np.ndarray:
    return self._decoder(index) / self._lengths(index)[:, None]

  def b_enc_F(self, index) -> np.ndarray:
    bias_N = _part(self._raw.b_enc_F, index)
    if self._moved_D is not None:
      rows_ND = _part(self._raw.w_enc_FD, index).astype(np.float64)
      bias_N = np.float32(bias_N + rows_ND @ self._moved_D)
    return bias_N * self._gain * self._lengths(index)

  def threshold_F(self, index) -> np.ndarray:
    part_N = _part(self._raw.threshold_F, index)
    return part_N * self._gain * self._lengths(index)

  def b_mag_F(self, index) -> np.ndarray:
    part_N = _part(self._raw.b_mag_F, index)
    return part_N * self._gain * self._lengths(index)

  def log_gain_F(self, index) -> np.ndarray:
    return _part(self._raw.log_gain_F, index)

  def b_dec_D(self, index) -> np.ndarray:
    b_dec_E = _part(self._raw.b_dec_D, index)
    if self._out_mean is not None:
      b_dec_E = b_dec_E - self._out_mean
    if self._skipped_mean is not None:
      b_dec_E = b_dec_E + self._skipped_mean @ self._raw.w_skip_DE
    return np.asarray(b_dec_E * self._out_scale, np.float32)

  def w_skip_DE(self, index) -> np.ndarray:
    if self._raw.w_skip_DE is None:
      shape = (self._raw.w_enc_FD.shape[1], self._raw.w_dec_FD.shape[1])
      return np.zeros(shape, np.float32)[index]
    out_over_in_DE = self._out_scale.reshape(1, -1) / self._in_scale.reshape(
      -1, 1
    )
    part_DE = np.broadcast_to(out_over_in_DE, self._raw.w_skip_DE.shape)[index]
    return _part(self._raw.w_skip_DE, index) * part_DE

  def _decoder(self, index):
    return _part(self._raw.w_dec_FD, index) * (self._out_scale / self._gain)

  def _lengths(self, index) -> np.ndarray:
    norm_N = np.linalg.norm(self._decoder(index), axis=1)
    zero = np.flatnonzero(norm_N == 0)
    if zero.size:
      raise errors.InputError(
        "the dictionary to start from: decoder row"
        f" {(index[0].start or 0) + int(zero[0])} is zero, which has no"
        " direction; remove such latents"
      )
    return np.where(np.abs(norm_N - 1) <= 1e-5, np.float32(1), norm_N)


def _host(treatment):
  """Scale and shift, float32 and float64 on the host."""
  shift_D = treatment.shift_D
  return np.asarray(treatment.scale, np.float32), (
    None if shift_D is None else np.asarray(shift_D, np.float64)
  )


def _gain(scale: np.ndarray) -> np.float32:
  """`treatment.gain` of scales on the host."""
  if not scale.ndim:
    return np.float32(scale)
  return np.float32(1 / np.sqrt(np.mean(1 / np.square(np.float64(scale)))))


def _part(array: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
  """A part of one of the dictionary's arrays, contiguous, float32."""
  part = np.ascontiguousarray(array[index], np.float32)
  if not np.isfinite(part).all():
    raise errors.InputError(
      "the dictionary to start from holds NaN or infinity; train it again, or"
      " export it again from its last good checkpoint"
    )
  return part


def _check_kind(source, wanted):
  """Refuses arrays that cannot be left out, or made."""
  ours = {} if wanted is None else _arrays(wanted)
  theirs = _arrays(source.params)
  gated = {"log_gain_F", "b_mag_F"}
  lacking = set(ours) - set(theirs) - {"w_skip_DE"}
  left_out = (set(theirs) - set(ours)) & (gated | {"w_skip_DE"})
  if lacking or left_out:
    raise errors.InputError(
      f"the dictionary to start from is another kind ({source.activation}):"
      f" it {'lacks' if lacking else 'has'}"
      f" {', '.join(sorted(lacking or left_out))}, which training"
      f" {'needs' if lacking else 'has no use for'}"
    )
