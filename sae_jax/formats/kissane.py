# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Crosscoders of ckkissane's crosscoder-model-diff-replication.

`W_enc` [M, D, F], `W_dec` [F, M, D], `b_enc` [F], `b_dec` [M, D] in
`cc_weights.pt`, with `cfg.json`: ReLU, for activations whose mean norm was made
√D in every source, by factors that are not in the files. `scaled` folds such
factors in.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax import errors, sae
from sae_jax.formats import conversions, directory, provenance, tensors

ARRAYS = ("W_enc", "W_dec", "b_enc", "b_dec")


def load(file: pathlib.Path, found: dict[str, Any]) -> sae.Sae:
  """The crosscoder of these arrays, for activations that are scaled.

  Raises:
    errors.InputError: shapes disagree.
  """
  f, m, d = tensors.sizes(file, found, "W_dec")
  shapes = {"W_enc": (m, d, f), "W_dec": (f, m, d)}
  shapes |= {"b_enc": (f,), "b_dec": (m, d)}
  tensors.check_shapes(file, found, shapes)
  path = file.parent / "cfg.json"
  config = directory.read_json(path) if path.is_file() else {}
  metadata = {
    "model_name": config.get("model_name"),
    "hook_name": config.get("hook_point"),
    "sae_jax_input": "activations whose mean norm is √D in every source",
  }
  return sae.make_sae(
    conversions.params(
      w_enc_FD=found["W_enc"].transpose(2, 0, 1).reshape(f, m * d),
      w_dec_FD=found["W_dec"].reshape(f, m * d),
      b_enc_F=found["b_enc"],
      b_dec_D=found["b_dec"].reshape(m * d),
    ),
    provenance.places(metadata, f, file),
    metadata,
    activation="relu",
    centred=False,
    sources=m,
  )


def scaled(dictionary: sae.Sae, factors_M: Sequence[float]) -> sae.Sae:
  """A crosscoder for x_m, from one for factors_m · x_m.

  Raises:
    errors.InputError: not one positive factor per source.
  """
  m = dictionary.sources
  if len(factors_M) != m or not all(factor > 0 for factor in factors_M):
    raise errors.InputError(
      f"{m} sources need {m} factors above 0, one each; these are"
      f" {list(factors_M)}"
    )
  factor_D = np.repeat(np.asarray(factors_M), dictionary.d_model // m)
  p = conversions.uncentred(dictionary).params
  params = conversions.params(
    w_enc_FD=np.asarray(p.w_enc_FD) * factor_D,
    w_dec_FD=np.asarray(p.w_dec_FD) / factor_D,
    b_enc_F=p.b_enc_F,
    b_dec_D=np.asarray(p.b_dec_D) / factor_D,
    threshold_F=p.threshold_F,
  )
  return dataclasses.replace(dictionary, params=params, centred=False)
