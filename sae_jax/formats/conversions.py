# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The same dictionary written another way, as a format has it.

Every function here keeps activations and reconstructions what they are.
"""

import dataclasses
from typing import Any

import numpy as np

from sae_jax import sae


def params(**arrays: Any) -> sae.Params:
  """Parameters from numpy arrays, as float32; None stays None."""
  fields: dict[str, Any] = {
    name: None if array is None else np.asarray(array, np.float32)
    for name, array in arrays.items()
  }
  return sae.Params(**fields)


def uncentred(dictionary: sae.Sae) -> sae.Sae:
  """With `w_enc (x − b_dec) + b_enc` as `w_enc x + (b_enc − w_enc b_dec)`."""
  return _moved(dictionary, centred=False)


def centred(dictionary: sae.Sae) -> sae.Sae:
  """The other way round; the widths in and out must be one."""
  return _moved(dictionary, centred=True)


def _moved(dictionary: sae.Sae, *, centred: bool) -> sae.Sae:
  if dictionary.centred == centred:
    return dictionary
  p = dictionary.params
  moved_F = np.einsum("fd,d->f", p.w_enc_FD, p.b_dec_D, dtype=np.float64)
  moved_F = moved_F if centred else -moved_F
  changed = {"b_enc_F": np.asarray(p.b_enc_F) + moved_F}
  if p.log_gain_F is not None:
    # Magnitudes are e^gain (pre − b_enc) + b_mag: b_enc drops out.
    gain_F = np.exp(np.asarray(p.log_gain_F, np.float64))
    changed["b_mag_F"] = np.asarray(p.b_mag_F) + gain_F * moved_F
  arrays: dict[str, Any] = {
    name: np.asarray(array, np.float32) for name, array in changed.items()
  }
  return dataclasses.replace(
    dictionary, params=dataclasses.replace(p, **arrays), centred=centred
  )
