# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Crosscoders of crosscoder_learning (diffing-toolkit) and of ckkissane.

crosscoder_learning: `encoder.weight` [M, D, F], `encoder.bias`,
`decoder.weight` [M, F, D], `decoder.bias` [M, D], in a .pt or, from the hub,
`model.safetensors` with `config.json`. With g_m its activation_global_scale,

    z_m = (x_m − mean_m) · g_m             where means are there
    f = relu(Σ_m z_m W_m + b)
    f = 0 unless f · n > threshold         of BatchTopK; n: code normalization
    x̂_m = (f V_m + c_m) / (g_m + 1e-8) + mean_m

Here a crosscoder is a dictionary of the sources' rows side by side. Those of
ckkissane are read too, see `kissane`. Paper: Minder et al., arXiv 2504.02922.
"""

import os
import pathlib
from typing import Any

import numpy as np

from sae_jax import errors, sae
from sae_jax.formats import (
  capabilities,
  conversions,
  directory,
  kissane,
  provenance,
  tensors,
  torch_file,
)

NAME = "crosscoder_learning"
FILE = "model_final.pt"

_THEIRS = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
_COMPILED = "_orig_mod."  # what torch.compile puts before every name
_EPS = 1e-8  # theirs, when activations are brought back
_NORMALIZATIONS = {
  1: "crosscoder",  # Σ_m ‖row of source m‖
  2: "sae",  # ‖row of all sources‖
  3: "mixed",  # both, weighted
  4: "none",
  5: "decoupled",  # a mask for each source
}
_NONE = 4


def matches(path: pathlib.Path) -> bool:
  """Whether `path` is such a file, or a directory with one."""
  return _file(path) is not None


def load(path: str | os.PathLike[str]) -> sae.Sae:
  """Reads a crosscoder, as float32, for raw activations (but see ckkissane).

  Activations are what their `encode` gives. Where activations were normalized,
  decoder rows are those for raw activations; metadata's
  `sae_jax_source_scales` holds each source's g, by which a source's rows have
  to be multiplied before decoder norms of sources are compared as in theirs.

  Raises:
    errors.InputError: the file is missing or damaged, shapes disagree, or its
      latents are active in one source and not in another (decoupled codes).
  """
  path = pathlib.Path(path)
  file = _file(path)
  if file is None:
    raise errors.InputError(
      f"{path}: no file with {', '.join(_THEIRS)}, or with"
      f" {', '.join(kissane.ARRAYS)}"
    )
  found = _without_prefix(tensors.read(file))
  if set(_THEIRS) <= set(found):
    return _load_theirs(file, found)
  return kissane.load(file, found)


def save(dictionary: sae.Sae, path: str | os.PathLike[str]) -> None:
  """Writes `path`, a .pt of crosscoder_learning, or it in the directory `path`.

  A JumpReLU dictionary becomes a BatchTopKCrossCoder, whose one threshold is
  the median of ours: where ours differ, activations are scaled latent by latent
  and decoder rows back, which leaves reconstructions what they are. Metadata is
  lost: the format has none.

  Raises:
    errors.InputError: the format has no such dictionaries, or a weight is not
      finite.
  """
  capabilities.refuse(dictionary, NAME)
  m = dictionary.sources
  p = conversions.uncentred(dictionary).params
  f, d = p.latents, p.d_model // m
  gain_F, threshold = np.ones(f, np.float32), None
  if p.threshold_F is not None:
    gain_F, threshold = _one_threshold(np.asarray(p.threshold_F, np.float32))
  w_enc_FD = np.asarray(p.w_enc_FD, np.float32) * gain_F[:, None]
  w_dec_FD = np.asarray(p.w_dec_FD, np.float32) / gain_F[:, None]
  arrays = {
    "encoder.weight": w_enc_FD.reshape(f, m, d).transpose(1, 2, 0),
    "encoder.bias": np.asarray(p.b_enc_F) * gain_F,
    "decoder.weight": w_dec_FD.reshape(f, m, d).transpose(1, 0, 2),
    "decoder.bias": np.asarray(p.b_dec_D).reshape(m, d),
  }
  tensors.check_finite("the dictionary to save", arrays)
  state: dict[str, Any] = {
    **{n: np.ascontiguousarray(a, np.float32) for n, a in arrays.items()},
    "code_normalization_id": np.asarray(_NONE, np.int64),
    # Not a number: activations are taken as they are.
    "activation_mean": np.full((m, d), np.nan, np.float32),
    "activation_std": np.full((m, d), np.nan, np.float32),
    "activation_global_scale": np.ones(m, np.float32),
    "target_rms": np.asarray(1, np.float32),
  }
  if threshold is not None:
    state["k"] = np.asarray(dictionary.k, np.int32)
    state["threshold"] = np.asarray(threshold, np.float32)
  path = pathlib.Path(path)
  if path.suffix != ".pt":
    path.mkdir(parents=True, exist_ok=True)
    path = path / FILE
  torch_file.write(path, state)


def _one_threshold(threshold_F: np.ndarray) -> tuple[np.ndarray, np.float32]:
  """(gain, t) with gain · pre > t exactly where pre > threshold."""
  if (threshold_F == threshold_F[0]).all() and threshold_F[0] >= 0:
    return np.ones_like(threshold_F), threshold_F[0]
  if not (threshold_F > 0).all():
    raise errors.InputError(
      f"the format {NAME} has one threshold for all latents; thresholds of this"
      " dictionary differ and are not all above 0: choose another format, such"
      " as saelens"
    )
  threshold = np.median(threshold_F)
  return threshold / threshold_F, threshold


def _load_theirs(file: pathlib.Path, found: dict[str, Any]) -> sae.Sae:
  path = file.parent / "config.json"
  config = directory.read_json(path) if path.is_file() else {}
  m, f, d = tensors.sizes(file, found, "decoder.weight")
  w_enc_MDF = _all_layers(file, found["encoder.weight"], config, m)
  found = {**found, "encoder.weight": w_enc_MDF}
  shapes = {"encoder.weight": (m, d, f), "encoder.bias": (f,)}
  shapes |= {"decoder.weight": (m, f, d), "decoder.bias": (m, d)}
  tensors.check_shapes(file, found, shapes)
  threshold_F = _threshold(file, found, config, f)
  mean_MD, scale_M = _normalizer(file, found, m, d)
  w_enc_MDF = w_enc_MDF * scale_M.astype(np.float32)[:, None, None]
  shift_F = np.einsum("md,mdf->f", mean_MD, w_enc_MDF, dtype=np.float64)
  back_M = (
    np.ones(m)
    if not mean_MD.any() and (scale_M == 1).all()
    else (scale_M + _EPS)
  )
  w_dec_MFD = found["decoder.weight"] / back_M.astype(np.float32)[:, None, None]
  b_dec_MD = found["decoder.bias"] / back_M[:, None] + mean_MD
  metadata = {"sae_jax_source_scales": scale_M.tolist()}
  return sae.make_sae(
    conversions.params(
      w_enc_FD=w_enc_MDF.transpose(2, 0, 1).reshape(f, m * d),
      w_dec_FD=w_dec_MFD.transpose(1, 0, 2).reshape(f, m * d),
      b_enc_F=found["encoder.bias"] - shift_F,
      b_dec_D=b_dec_MD.reshape(m * d),
      threshold_F=threshold_F,
    ),
    provenance.places(metadata, f, file),
    metadata,
    activation="relu" if threshold_F is None else "jumprelu",
    centred=False,
    sources=m,
  )


def _all_layers(
  file: pathlib.Path, weight_NDF: np.ndarray, config: dict[str, Any], m: int
) -> np.ndarray:
  """The encoder of all sources; those that it does not look at get zeros."""
  n = len(weight_NDF)
  if n == m:
    return weight_NDF
  layers = config.get("encoder_layers")
  if not isinstance(layers, list) or len(layers) != n:
    raise errors.InputError(
      f"{file}: the encoder reads {n} of {m} sources; which, encoder_layers of"
      f" a config.json beside the file has to say, and it says {layers}"
    )
  weight_MDF = np.zeros((m, *weight_NDF.shape[1:]), np.float32)
  weight_MDF[layers] = weight_NDF
  return weight_MDF


def _threshold(
  file: pathlib.Path, found: dict[str, Any], config: dict[str, Any], f: int
) -> np.ndarray | None:
  """What pre-activations have to exceed; None: 0, as of a ReLU crosscoder."""
  if "threshold" not in found:
    return None
  number = int(found.get("code_normalization_id", 1))
  kind = _NORMALIZATIONS.get(number, str(number))
  if kind == "decoupled" or np.size(found["threshold"]) != 1:
    raise errors.InputError(
      f"{file}: its latents are active in one source and not in another"
      f" (code_normalization={kind}), which is not supported; crosscoder, sae,"
      " mixed and none are"
    )
  threshold = float(np.reshape(found["threshold"], ()))
  if threshold < 0:  # never set: their encode keeps all that is positive
    return None
  w_dec_MFD = found["decoder.weight"]
  square_MF = np.einsum("mfd,mfd->mf", w_dec_MFD, w_dec_MFD, dtype=np.float64)
  whole_F, sum_F = np.sqrt(square_MF.sum(0)), np.sqrt(square_MF).sum(0)
  if kind == "crosscoder":
    norm_F = sum_F
  elif kind == "sae":
    norm_F = whole_F
  elif kind == "mixed":
    weight = "code_normalization_alpha_"
    norm_F = (
      config.get(weight + "sae", 1.0) * whole_F
      + config.get(weight + "cc", 0.1) * sum_F
    )
  elif kind == "none":
    norm_F = np.ones(f)
  else:
    raise errors.InputError(
      f"{file}: code_normalization_id={number} is not known; known:"
      f" {_NORMALIZATIONS}"
    )
  # A latent that decodes to nothing is never active.
  most = np.finfo(np.float32).max
  return np.where(norm_F > 0, threshold / np.where(norm_F > 0, norm_F, 1), most)


def _normalizer(
  file: pathlib.Path, found: dict[str, Any], m: int, d: int
) -> tuple[np.ndarray, np.ndarray]:
  """(mean, scale) of every source; 0 and 1 where there is no normalizer."""
  mean_MD, std_MD = found.get("activation_mean"), found.get("activation_std")
  if mean_MD is None or std_MD is None:
    return np.zeros((m, d)), np.ones(m)
  if np.isnan(mean_MD).any() or np.isnan(std_MD).any():
    return np.zeros((m, d)), np.ones(m)
  name = "activation_global_scale"
  tensors.check_shapes(file, found, {"activation_mean": (m, d), name: (m,)})
  scale_M = np.asarray(found[name], np.float64)
  if not (np.isfinite(scale_M) & (scale_M > 0)).all():
    raise errors.InputError(f"{file}: {name} is {scale_M}, not above 0")
  return np.asarray(mean_MD, np.float64), scale_M


def _without_prefix(found: dict[str, Any]) -> dict[str, Any]:
  return {name.removeprefix(_COMPILED): a for name, a in found.items()}


def _file(path: pathlib.Path) -> pathlib.Path | None:
  files = [path]
  if path.is_dir():
    files = sorted([*path.glob("*.safetensors"), *path.glob("*.pt")])
  for file in files:
    if not file.is_file():
      continue
    shapes = _without_prefix(tensors.shapes(file))
    for names in (_THEIRS, kissane.ARRAYS):
      if set(names) <= set(shapes) and len(shapes[names[0]]) == 3:
        return file
  return None
