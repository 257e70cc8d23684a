# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Gemma Scope's `params.npz`, Gemma Scope 2's `params.safetensors`.

JumpReLU dictionaries and transcoders: `w_enc` [D, F], `w_dec` [F, E], `b_enc`,
`b_dec`, `threshold` [F], and maybe `affine_skip_connection` [D, E], in lower or
upper case; pre = x w_enc + b_enc, so b_dec is not subtracted from the input.
Gemma Scope's dictionaries of the embedding take rows of the embedding table,
not multiplied by √D.

Papers: arXiv 2408.05147; the technical report of Gemma Scope 2.
"""

import os
import pathlib
import re
from typing import Any

import numpy as np
import safetensors.numpy

from sae_jax import artifacts, errors, sae
from sae_jax.formats import (
  capabilities,
  conversions,
  directory,
  provenance,
  tensors,
)

NAME = "gemma_scope"
CONFIG = "config.json"
NPZ, SAFETENSORS = "params.npz", "params.safetensors"

_SKIP = "affine_skip_connection"
_ARRAYS = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
# Below `model.layers.N.` in Gemma Scope 2's own words, and in SAELens's.
_HOOKS = {
  "output": "hook_resid_post",
  "self_attn.o_proj.input": "attn.hook_z",
  "post_feedforward_layernorm.output": "hook_mlp_out",
  "pre_feedforward_layernorm.output": "hook_mlp_in",
}
_SITES = {
  "res": "hook_resid_post",
  "mlp": "hook_mlp_out",
  "att": "attn.hook_z",
}


def matches(path: pathlib.Path) -> bool:
  """Whether `path` is such a file, or a directory with one."""
  return _file(path) is not None


def load(path: str | os.PathLike[str]) -> sae.Sae:
  """Reads a dictionary or transcoder, as float32.

  Model and hook come from `config.json` beside the file, or from the folders'
  names, `gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`.

  Raises:
    errors.InputError: a file is missing or damaged, shapes disagree, or it is
      a part of a cross-layer transcoder or of a crosscoder.
  """
  path = pathlib.Path(path)
  file = _file(path)
  if file is None:
    raise errors.InputError(f"{path}: no {NPZ} and no {SAFETENSORS}")
  found = {name.lower(): a for name, a in tensors.read(file).items()}
  unknown = sorted(set(found) - {*_ARRAYS, _SKIP})
  if unknown:
    raise errors.InputError(
      f"{file}: {', '.join(unknown)} is not understood; a dictionary holds"
      f" {', '.join(_ARRAYS)} and maybe {_SKIP}"
    )
  if any(np.ndim(a) != 2 for n, a in found.items() if n.startswith("w_")):
    raise errors.InputError(
      f"{file} is one layer of a cross-layer transcoder or of a crosscoder"
      f" (w_dec has the shape {np.shape(found['w_dec'])}), which are not"
      " supported; single-layer dictionaries and transcoders are"
    )
  (d, f), e = np.shape(found["w_enc"]), np.shape(found["w_dec"])[-1]
  shapes = {"w_enc": (d, f), "w_dec": (f, e), "b_dec": (e,)}
  shapes |= {"b_enc": (f,), "threshold": (f,)}
  if _SKIP in found:
    shapes[_SKIP] = (d, e)
  tensors.check_shapes(file, found, shapes)
  metadata = _metadata(file)
  return sae.make_sae(
    conversions.params(
      w_enc_FD=found["w_enc"].T,
      w_dec_FD=found["w_dec"],
      b_enc_F=found["b_enc"],
      b_dec_D=found["b_dec"],
      threshold_F=found["threshold"],
      w_skip_DE=found.get(_SKIP),
    ),
    provenance.places(metadata, f, file),
    metadata,
    activation="jumprelu",
    centred=False,
  )


def save(dictionary: sae.Sae, path: str | os.PathLike[str]) -> None:
  """Writes the directory `path`: `params.npz`, and what `config.json` can say.

  With a skip connection, which only Gemma Scope 2 has, `params.safetensors`. A
  ReLU dictionary gets thresholds of 0.

  Raises:
    errors.InputError: the format has no such dictionaries, or a weight is not
      finite.
  """
  capabilities.refuse(dictionary, NAME)
  p = conversions.uncentred(dictionary).params
  threshold_F = p.threshold_F
  if threshold_F is None:
    threshold_F = np.zeros(p.latents, np.float32)
  arrays = {
    "w_enc": np.asarray(p.w_enc_FD, np.float32).T,
    "w_dec": p.w_dec_FD,
    "b_enc": p.b_enc_F,
    "b_dec": p.b_dec_D,
    "threshold": threshold_F,
  }
  if p.w_skip_DE is not None:
    arrays[_SKIP] = p.w_skip_DE
  arrays = {n: np.ascontiguousarray(a, np.float32) for n, a in arrays.items()}
  tensors.check_finite("the dictionary to save", arrays)
  path = pathlib.Path(path)
  path.mkdir(parents=True, exist_ok=True)
  for name in (NPZ, SAFETENSORS):
    (path / name).unlink(missing_ok=True)
  artifacts.write_json_atomic(
    path / CONFIG,
    {
      "architecture": "jump_relu",
      "affine_connection": p.w_skip_DE is not None,
      "model_name": dictionary.metadata.get("model_name"),
      provenance.KEY: provenance.kept(dictionary),
    },
  )
  if p.w_skip_DE is None:
    named = {n.replace("w_", "W_"): a for n, a in arrays.items()}
    artifacts.write_npz_atomic(path / NPZ, named)
  else:
    artifacts.write_bytes_atomic(
      path / SAFETENSORS, safetensors.numpy.save(arrays)
    )


def _file(path: pathlib.Path) -> pathlib.Path | None:
  files = [path]
  if path.is_dir():
    files = [path / NPZ, path / SAFETENSORS]
    files += sorted(path.glob("params_layer_*.safetensors"))[:1]
  for file in files:
    if file.is_file():
      held = {name.lower() for name in tensors.shapes(file)}
      if held >= set(_ARRAYS):
        return file
  return None


def _metadata(file: pathlib.Path) -> dict[str, Any]:
  path = file.parent / CONFIG
  if not path.is_file():
    return _from_folders(file)
  config = directory.read_json(path)
  known = config.get(provenance.KEY)
  if isinstance(known, dict):
    return known
  metadata = {"model_name": config.get("model_name"), "prepend_bos": True}
  for key, ours in (("in", "hook_name"), ("out", "hook_name_out")):
    place = str(config.get(f"hf_hook_point_{key}") or "")
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", place)
    if found and found[2] in _HOOKS:
      metadata[ours] = f"blocks.{found[1]}.{_HOOKS[found[2]]}"
    if place:
      metadata[ours.replace("hook", "hf_hook")] = place
  return metadata


def _from_folders(file: pathlib.Path) -> dict[str, Any]:
  """Model and hook as the folders of Gemma Scope's hub repositories say."""
  folders = file.absolute().parent.as_posix()
  repo = re.search(r"gemma-scope-(\d+b)-(pt|it)-(\w+)", folders)
  layer = re.search(r"layer_(\d+)", folders)
  if not repo or not layer:
    return {}
  size, tuning, site = repo.groups()
  block = f"blocks.{layer[1]}"
  metadata = {
    "model_name": f"gemma-2-{size}" + ("-it" if tuning == "it" else ""),
    "context_size": 1024,
    "prepend_bos": True,
  }
  if site == "transcoders":
    metadata["hook_name"] = f"{block}.ln2.hook_normalized"
    metadata["hook_name_out"] = f"{block}.hook_mlp_out"
  elif site in _SITES:
    metadata["hook_name"] = f"{block}.{_SITES[site]}"
  return metadata
