# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Llamascopium (Language-Model-SAEs) and Llama Scope's hub repositories.

`config.json` and `sae_weights.safetensors` with `W_E` [D, F], `b_E`, `W_D`
[F, E], `b_D`; earlier ones, such as Llama Scope's `hyperparams.json` and
`checkpoints/final.safetensors`, with `encoder.weight` [F, D],
`decoder.weight` [E, F] and their biases. With s = √D / (the data's mean norm),
their own rules are

    pre = (s_in x) W_E + b_E       b_D is not subtracted
    score = pre · ‖W_D row‖        where sparsity_include_decoder_norm
    f = pre where score > exp(log_jumprelu_threshold), or is among the k largest
    x̂ = (f W_D + b_D) / s_out

Here score / s_out becomes the activation, on a decoder of unit rows, for raw x.
`jump_relu_threshold`, which Llama Scope's hub configs have instead of a tensor,
is compared with that quantity, as their inference mode does; in the published
ones it is about 2 / s_out, with s_out from 2 to 19.

Paper: He et al., arXiv 2410.20526.
"""

import json
import math
import os
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy

from sae_jax import artifacts, errors, sae
from sae_jax.formats import capabilities, conversions, provenance, tensors

NAME = "llamascopium"
CONFIG, WEIGHTS = "config.json", "sae_weights.safetensors"

_CONFIGS = (CONFIG, "hyperparams.json")
_WEIGHTS = (
  WEIGHTS,
  "checkpoints/pruned.safetensors",
  "checkpoints/final.safetensors",
)
_NORM = "dataset_average_activation_norm"
_LOG_THRESHOLD = "log_jumprelu_threshold"
_EARLIER = {  # names before version 2, and now
  "encoder.weight": "W_E",
  "encoder.bias": "b_E",
  "decoder.weight": "W_D",
  "decoder.bias": "b_D",
  f"activation_function.{_LOG_THRESHOLD}": _LOG_THRESHOLD,
}


def matches(path: pathlib.Path) -> bool:
  """Whether `path` is a directory with such a config and weights."""
  config = _config(path)
  return (
    config is not None
    and "d_model" in config
    and "act_fn" in config
    and any((path / name).exists() for name in (*_WEIGHTS, "sae_weights.dcp"))
  )


def load(path: str | os.PathLike[str]) -> sae.Sae:
  """Reads a dictionary or transcoder, as float32, for raw activations.

  Raises:
    errors.InputError: a file is missing or damaged, shapes disagree, or it is
      of a kind that is not supported.
  """
  path = pathlib.Path(path)
  config = _config(path)
  file = next((path / w for w in _WEIGHTS if (path / w).is_file()), None)
  if config is None or file is None:
    raise errors.InputError(
      f"{path}: no {' or '.join(_CONFIGS)} with one of {', '.join(_WEIGHTS)}"
      " (Llamascopium itself makes a .safetensors of a .dcp:"
      " SparseDictionary.from_pretrained without a mesh, save_pretrained)"
    )
  act_fn = str(config.get("act_fn", "relu")).lower()
  _check_supported(path, config, act_fn)
  found = {_EARLIER.get(n, n): a for n, a in tensors.read(file).items()}
  if "encoder.weight" in tensors.shapes(file):
    found |= {name: found[name].T for name in ("W_E", "W_D") if name in found}
  d, f = tensors.matrix_shape(file, found, "W_E")
  e = tensors.matrix_shape(file, found, "W_D")[1]
  shapes = {"W_E": (d, f), "W_D": (f, e), "b_E": (f,)}
  if config.get("use_decoder_bias", True):
    shapes["b_D"] = (e,)
  tensors.check_shapes(file, found, shapes)
  s_in, s_out = _scales(path, config, found, d)
  w_dec_FE, gain_F = found["W_D"], np.ones(f)
  if config.get("sparsity_include_decoder_norm", True):
    square_F = np.einsum("fe,fe->f", w_dec_FE, w_dec_FE, dtype=np.float64)
    gain_F = np.sqrt(square_F)
    # A row of zeros decodes to nothing, and scores 0.
    divisor_F = np.where(gain_F > 0, gain_F, 1).astype(np.float32)
    w_dec_FE = w_dec_FE / divisor_F[:, None]
  gain_in_F = gain_F * (s_in / s_out)
  metadata = _metadata(config)
  return sae.make_sae(
    conversions.params(
      w_enc_FD=found["W_E"].T * gain_in_F.astype(np.float32)[:, None],
      w_dec_FD=w_dec_FE,
      b_enc_F=found["b_E"] * (gain_F / s_out),
      b_dec_D=found["b_D"] / s_out if "b_D" in shapes else np.zeros(e),
      threshold_F=_threshold(path, config, found, f, s_out)
      if act_fn == "jumprelu"
      else None,
    ),
    int(config["top_k"])
    if act_fn == "topk"
    else provenance.places(metadata, f, path),
    metadata,
    activation=act_fn,
    centred=False,
  )


def save(dictionary: sae.Sae, path: str | os.PathLike[str]) -> None:
  """Writes the directory `path`; the weights take raw activations as they are.

  Raises:
    errors.InputError: the format has no such dictionaries, or a weight is not
      finite.
  """
  capabilities.refuse(dictionary, NAME)
  p = conversions.uncentred(dictionary).params
  arrays = {
    "W_E": np.asarray(p.w_enc_FD, np.float32).T,
    "b_E": p.b_enc_F,
    "W_D": p.w_dec_FD,
    "b_D": p.b_dec_D,
  }
  if p.threshold_F is not None:
    # Their thresholds are positive; pre > 0 is what relu(pre) > 0 asks.
    least = np.finfo(np.float32).tiny
    arrays[f"activation_function.{_LOG_THRESHOLD}"] = np.log(
      np.maximum(np.asarray(p.threshold_F, np.float64), least)
    )
  arrays = {n: np.ascontiguousarray(a, np.float32) for n, a in arrays.items()}
  tensors.check_finite("the dictionary to save", arrays)
  path = pathlib.Path(path)
  path.mkdir(parents=True, exist_ok=True)
  (path / CONFIG).unlink(missing_ok=True)
  artifacts.write_bytes_atomic(
    path / WEIGHTS,
    safetensors.numpy.save(arrays, {"version": "sae_jax"}),
  )
  artifacts.write_json_atomic(path / CONFIG, _written_config(dictionary))


def _written_config(dictionary: sae.Sae) -> dict[str, Any]:
  d, f = dictionary.d_model, dictionary.latents
  factor = f / d
  if int(d * factor) != f:  # their d_sae; the quotient was rounded down
    factor = math.nextafter(factor, math.inf)
  hook = dictionary.metadata.get("hook_name") or "unknown"
  return {
    "device": "cpu",
    "dtype": "torch.float32",
    "sae_type": "sae",
    "d_model": d,
    "expansion_factor": factor,
    "use_decoder_bias": True,
    "act_fn": dictionary.activation,
    "norm_activation": "inference",
    "sparsity_include_decoder_norm": False,
    "top_k": dictionary.k,
    "hook_point_in": hook,
    "hook_point_out": dictionary.metadata.get("hook_name_out") or hook,
    "use_glu_encoder": False,
  }


def _config(path: pathlib.Path) -> dict[str, Any] | None:
  for name in _CONFIGS:
    try:
      config = json.loads((path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
      continue
    if isinstance(config, dict):
      return config
  return None


def _check_supported(
  path: pathlib.Path, config: dict[str, Any], act_fn: str
) -> None:
  supported = {
    "sae_type": ("sae", config.get("sae_type", "sae")),
    "use_glu_encoder": (False, config.get("use_glu_encoder", False)),
    "apply_decoder_bias_to_pre_encoder": (
      False,
      config.get("apply_decoder_bias_to_pre_encoder", False),
    ),
  }
  for name, (wanted, value) in supported.items():
    if value != wanted:
      raise errors.InputError(
        f"{path}: {name}={value!r} is not supported; {wanted!r} is"
      )
  if act_fn not in ("relu", "topk", "jumprelu"):
    raise errors.InputError(
      f"{path}: act_fn={act_fn!r} is not supported; relu, topk and jumprelu"
      " are (batchtopk depends on what else is in the batch: give it a"
      " threshold with Llamascopium's conversion to jumprelu)"
    )
  norm = config.get("norm_activation", "dataset-wise")
  if norm not in ("dataset-wise", "inference"):
    raise errors.InputError(
      f"{path}: norm_activation={norm!r} is not supported: it scales every row"
      " or batch by its own norm; dataset-wise and inference are"
    )


def _scales(
  path: pathlib.Path, config: dict[str, Any], found: dict[str, Any], d: int
) -> tuple[float, float]:
  """√D over the data's mean norm, of what is read and of what is written."""
  if config.get("norm_activation", "dataset-wise") == "inference":
    return 1.0, 1.0
  scales = []
  for side in ("in", "out"):
    hook = config.get(f"hook_point_{side}")
    norm = found.get(f"{_NORM}.{hook}")
    if norm is None:
      norm = (config.get(_NORM) or {}).get(side)
    if norm is None or np.size(norm) != 1 or not 0 < np.sum(norm) < math.inf:
      raise errors.InputError(
        f"{path}: norm_activation='dataset-wise' needs the data's mean norm,"
        f" {_NORM}.{hook} of the weights or {_NORM}.{side} of the config; it is"
        f" {norm}"
      )
    scales.append(math.sqrt(d) / float(np.sum(norm)))
  return scales[0], scales[1]


def _threshold(
  path: pathlib.Path,
  config: dict[str, Any],
  found: dict[str, Any],
  latents: int,
  s_out: float,
) -> np.ndarray:
  if _LOG_THRESHOLD in found:
    tensors.check_shapes(path, found, {_LOG_THRESHOLD: (latents,)})
    return np.exp(np.float64(found[_LOG_THRESHOLD])) / s_out
  threshold = config.get("jump_relu_threshold")
  if not isinstance(threshold, int | float):
    raise errors.InputError(
      f"{path}: act_fn='jumprelu' needs {_LOG_THRESHOLD} in the weights or"
      " jump_relu_threshold in the config"
    )
  return np.full(latents, threshold, np.float32)


def _metadata(config: dict[str, Any]) -> dict[str, Any]:
  hook_in, hook_out = config.get("hook_point_in"), config.get("hook_point_out")
  metadata = {"hook_name": hook_in}
  if hook_out != hook_in:
    metadata["hook_name_out"] = hook_out
  return metadata
