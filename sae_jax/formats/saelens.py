# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""SAELens's layout (version 6), which is also ours; earlier ones are read.

A directory with `sae_weights.safetensors` (`W_enc` [D, F], `W_dec` [F, E],
`b_enc` [F], `b_dec` [E], and what the architecture has besides) and `cfg.json`,
which is written last: a directory without it is not a dictionary. Where SAELens
has no architecture of a kind, its layout is continued under a name of ours,
see `saelens_config.ARCHITECTURES`.
"""

import functools
import os
import pathlib
from typing import Any

import numpy as np

from sae_jax import errors, sae, version
from sae_jax.formats import (
  directory,
  memory_maps,
  provenance,
  saelens_config,
  streamed,
)

NAME = "saelens"
CONFIG, WEIGHTS = saelens_config.CONFIG, saelens_config.WEIGHTS
# The release whose layout is written. Below 6.0.0 SAELens would convert it.
LAYOUT_VERSION = "6.54.0"
# What SAELens's own tools look up in the metadata, when nobody says otherwise.
_METADATA_DEFAULTS: dict[str, Any] = {
  "sae_lens_version": LAYOUT_VERSION,
  "sae_lens_training_version": None,
  "model_name": None,
  "model_class_name": "HookedTransformer",
  "model_from_pretrained_kwargs": {},
  "hook_name": None,
  "hook_head_index": None,
  "context_size": None,
  "prepend_bos": None,
  "dataset_path": None,
  "exclude_special_tokens": None,
  "seqpos_slice": [None],
  "neuronpedia_id": None,
}
# Kept in the metadata while a dictionary is loaded: its rows are the heads of
# an attention layer side by side, which only SAELens's hooks need to know.
_RESHAPE = "reshape_activations"


def matches(path: pathlib.Path) -> bool:
  """Whether the directory holds a dictionary in this layout."""
  return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def load(path: str | os.PathLike[str]) -> sae.Sae:
  """Reads a dictionary, ours or SAELens's, as memory maps of the file.

  Of one with `rescale_acts_by_decoder_norm` the norms are folded into the
  weights, which are read for that; activations and reconstructions stay.

  Raises:
    errors.InputError: a file is missing or damaged, the configuration asks
      for something that is not implemented (it is named), or shapes disagree.
  """
  path = pathlib.Path(path)
  config = saelens_config.read(path / CONFIG)
  kind = saelens_config.ARCHITECTURES[config["architecture"]]
  tensors = memory_maps.tensors(path / WEIGHTS)
  sizes = {"D": config["d_in"], "E": config["d_out"], "F": config["d_sae"]}
  fields = _fields(kind)
  # Of before SAELens 6; True in its config is refused.
  unused = tensors.pop("scaling_factor", None)
  if unused is not None and not np.all(unused == 1):
    raise errors.InputError(
      f"{path / WEIGHTS}: scaling_factor is not 1, but {CONFIG} says that there"
      " was no finetuning of it"
    )
  directory.check_tensors(
    tensors,
    {
      name: tuple(sizes[axis] for axis in axes)
      for name, axes in fields.values()
    },
    f"{path / WEIGHTS} ({CONFIG}: d_in={config['d_in']},"
    f" d_out={config['d_out']}, d_sae={config['d_sae']})",
  )
  arrays: dict[str, Any] = {
    # All that is turned is a matrix: vectors are their own transposes.
    field: tensors[name].T if _turned(name) else tensors[name]
    for field, (name, _) in fields.items()
  }
  params = sae.Params(**arrays)
  if config["rescale_acts_by_decoder_norm"]:
    params = _fold_norms(params)
  metadata = dict(config["metadata"])
  if config[_RESHAPE] != "none":
    metadata[_RESHAPE] = config[_RESHAPE]
  return sae.make_sae(
    params,
    config["k"]
    if kind.activation == "topk"
    else provenance.places(metadata, config["d_sae"], path / CONFIG),
    metadata,
    activation=kind.activation,
    centred=config["apply_b_dec_to_input"],
    layer_norm=config["normalize_activations"] == "layer_norm",
    sources=provenance.sources(metadata, path / CONFIG),
  )


def save(dictionary: sae.Sae, path: str | os.PathLike[str]) -> None:
  """Writes the directory `path`, float32, atomically file by file.

  `dictionary.metadata` goes into `cfg.json`, with SAELens's defaults for what
  it lacks. A dictionary that is in `path` loses its `cfg.json` before its
  weights. Where several processes train, all of them call this and the first
  one writes; no host holds more than a block of rows besides its own part.

  Raises:
    errors.InputError: a weight is NaN or infinite, or it is a transcoder with
      a layer norm, which the layout has no words for.
  """
  architecture = saelens_config.name(dictionary)
  kind = saelens_config.ARCHITECTURES[architecture]
  if kind.transcoder and dictionary.layer_norm:
    raise errors.InputError(
      f"format={NAME!r} has no layer norm of {architecture}s"
    )
  metadata = provenance.kept(dictionary)
  reshape = metadata.pop(_RESHAPE, "none")
  config: dict[str, Any] = {
    "architecture": architecture,
    **(
      {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
      if kind.activation == "topk"
      else {}
    ),
    "d_in": dictionary.d_model,
    "d_sae": dictionary.latents,
    **({"d_out": dictionary.d_out} if kind.transcoder else {}),
    "dtype": "float32",
    "device": "cpu",
    "apply_b_dec_to_input": dictionary.centred,
    "normalize_activations": "layer_norm" if dictionary.layer_norm else "none",
    "reshape_activations": reshape,
    "metadata": {
      **_METADATA_DEFAULTS,
      "sae_jax_version": version.__version__,
      **metadata,
    },
  }
  arrays = {
    name: getattr(dictionary.params, field)
    for field, (name, _) in _fields(kind).items()
  }
  directory.write(
    path,
    weights=WEIGHTS,
    write_weights=functools.partial(
      streamed.write,
      arrays=arrays,
      transposed=tuple(filter(_turned, arrays)),
      check=directory.check_finite,
    ),
    config=CONFIG,
    values=config,
  )


def _fields(kind: saelens_config.Architecture) -> dict[str, tuple[str, str]]:
  """Of our arrays their name and axes in the file."""
  fields = {
    "w_enc_FD": ("W_enc", "DF"),
    "w_dec_FD": ("W_dec", "FE"),
    "b_enc_F": ("b_enc", "F"),
    "b_dec_D": ("b_dec", "E"),
  }
  if kind.activation == "jumprelu":
    fields["threshold_F"] = ("threshold", "F")
  if kind.activation == "gated":
    fields |= {
      "b_enc_F": ("b_gate", "F"),
      "log_gain_F": ("r_mag", "F"),
      "b_mag_F": ("b_mag", "F"),
    }
  if kind.skip:
    fields["w_skip_DE"] = ("W_skip", "ED")
  return fields


def _turned(name: str) -> bool:
  return name in ("W_enc", "W_skip")


def _fold_norms(params: sae.Params) -> sae.Params:
  """For pre-activations that SAELens multiplies by ‖w_dec‖.

  It divides by it when it decodes.
  """
  host: dict[str, np.ndarray] = {
    name: np.asarray(getattr(params, name), np.float32)
    for name in ("w_enc_FD", "w_dec_FD", "b_enc_F", "b_dec_D")
  }
  norm_F1 = np.linalg.norm(host["w_dec_FD"], axis=1, keepdims=True)
  host["w_enc_FD"] = host["w_enc_FD"] * norm_F1
  host["b_enc_F"] = host["b_enc_F"] * norm_F1[:, 0]
  tiny = np.finfo(np.float32).tiny
  host["w_dec_FD"] = host["w_dec_FD"] / np.maximum(norm_F1, tiny)
  arrays: dict[str, Any] = host
  return sae.Params(**arrays)
