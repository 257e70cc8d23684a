# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""dictionary_learning's trainer directories: `ae.pt` and `config.json`.

`ae.pt` is the state dict of one of its classes, see `_CLASSES`; `config.json`
says which, under `trainer`. SAEBench's own baselines are of this format.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np

from sae_jax import errors, sae
from sae_jax.formats import (
  capabilities,
  conversions,
  directory,
  provenance,
  streamed,
  torch_file,
)
from sae_jax.formats import dictionary_learning_config as config_lib

NAME = "dictionary_learning"
CONFIG, WEIGHTS = config_lib.CONFIG, "ae.pt"


@dataclasses.dataclass(frozen=True)
class _Class:
  """One of its classes: what it does, and what its arrays are called."""

  activation: str
  centred: bool  # whether its encode subtracts the decoder's bias
  names: dict[str, str]
  extra: tuple[str, ...] = ()

  @property
  def all_names(self) -> set[str]:
    return {*self.names.values(), *self.extra}


_LINEAR = {"w_enc_FD": "encoder.weight", "w_dec_FD": "decoder.weight"}
_MATRICES = {
  "w_enc_FD": "W_enc",
  "w_dec_FD": "W_dec",
  "b_enc_F": "b_enc",
  "b_dec_D": "b_dec",
}
_TOPK = _LINEAR | {"b_enc_F": "encoder.bias", "b_dec_D": "b_dec"}
_GATED = _LINEAR | {
  "b_enc_F": "gate_bias",
  "b_dec_D": "decoder_bias",
  "log_gain_F": "r_mag",
  "b_mag_F": "mag_bias",
}
_CLASSES = {
  "AutoEncoderTopK": _Class("topk", True, _TOPK, ("k", "threshold")),
  "BatchTopKSAE": _Class("jumprelu", True, _TOPK, ("k", "threshold")),
  "MatryoshkaBatchTopKSAE": _Class(
    *("jumprelu", True, _MATRICES), ("k", "threshold", "group_sizes")
  ),
  "JumpReluAutoEncoder": _Class(
    *("jumprelu", False, _MATRICES | {"threshold_F": "threshold"})
  ),
  "GatedAutoEncoder": _Class("gated", True, _GATED),
  "AutoEncoder": _Class(
    *("relu", True),
    _LINEAR | {"b_enc_F": "encoder.bias", "b_dec_D": "bias"},
  ),
  "AutoEncoderNew": _Class(
    *("relu", False),
    _LINEAR | {"b_enc_F": "encoder.bias", "b_dec_D": "decoder.bias"},
  ),
}
# Of these matrices columns are latents.
_TURNED = ("W_enc", "decoder.weight")
# A length that dictionary_learning takes for 1: torch.allclose's defaults.
_NORM_TOLERANCE = 1e-5 + 1e-8


def matches(path: pathlib.Path) -> bool:
  """Whether `path` is a trainer's directory, or such a state dict."""
  if path.suffix == ".pt" and path.is_file():
    names = torch_file.names(path)
    return any(names == kind.all_names for kind in _CLASSES.values())
  return (path / WEIGHTS).is_file()


def load(path: str | os.PathLike[str]) -> sae.Sae:
  """Reads a dictionary, as memory maps, as `load_dictionary` would.

  So `AutoEncoder`s are brought to decoder rows of norm 1, with activations that
  are larger by what the rows lose.

  Raises:
    errors.InputError: a file is missing or damaged, the class is not known, its
      arrays are others or of other shapes, or it has no threshold yet.
  """
  path = pathlib.Path(path)
  file = path / WEIGHTS if path.is_dir() else path
  state = torch_file.read(file)
  # Checkpoints of a training are in a directory below its config.
  below = path == file and file.parent.name == "checkpoints"
  place = (file.parent.parent if below else file.parent) / CONFIG
  config = directory.read_json(place) if place.is_file() else {}
  for part in ("trainer", "buffer"):
    if not isinstance(config.get(part, {}), dict):
      raise errors.InputError(f"{place}: {part} is not a JSON object")
  name = _class_of(config, state, file)
  kind = _CLASSES[name]
  arrays = _arrays(kind, state, config, file)
  if kind.extra and kind.activation == "jumprelu":
    threshold = _scalar(state, "threshold", file)
    if not threshold >= 0:
      raise errors.InputError(
        f"{file}: threshold={threshold:g} was never set, so every positive"
        " pre-activation would be active; train for more than"
        " threshold_start_step steps"
      )
    latents = len(arrays["w_enc_FD"])
    arrays["threshold_F"] = np.full(latents, threshold, np.float32)
  if name == "AutoEncoder":
    _normalize(arrays)
  metadata = provenance.carried(config, place)
  if metadata is None:
    metadata = config_lib.metadata(config, name, state)
  params = sae.Params(**arrays)
  k = _k(kind, state, config, file)
  if kind.activation != "topk":
    k = provenance.places(metadata, params.latents, place)
  return sae.make_sae(
    params, k, metadata, activation=kind.activation, centred=kind.centred
  )


def _class_of(config: dict[str, Any], state: dict[str, Any], file) -> str:
  name = config.get("trainer", {}).get("dict_class")
  if name is not None and name not in _CLASSES:
    raise errors.InputError(
      f"{file.parent / CONFIG}: dict_class={name!r} is not supported;"
      f" supported: {', '.join(_CLASSES)}"
    )
  fitting = [n for n, kind in _CLASSES.items() if kind.all_names == set(state)]
  if name is None and len(fitting) == 1:
    return fitting[0]
  if name is None:
    raise errors.InputError(
      f"{file} may be of the classes {', '.join(fitting or _CLASSES)}; put its"
      f" {CONFIG} beside it, which says which (trainer.dict_class)"
    )
  return name


def _arrays(kind: _Class, state, config, file) -> dict[str, Any]:
  """The arrays, latents first; their names and shapes are checked."""
  trainer = config.get("trainer", {})
  w_enc = state.get(kind.names["w_enc_FD"])
  if np.ndim(w_enc) != 2:
    raise errors.InputError(f"{file}: no matrix {kind.names['w_enc_FD']}")
  turned = kind.names["w_enc_FD"] in _TURNED
  found = w_enc.shape[::-1] if turned else w_enc.shape
  sizes = {
    "F": trainer.get("dict_size", found[0]),
    "D": trainer.get("activation_dim", found[1]),
  }
  shapes = {}
  for field, name in kind.names.items():
    axes = field.rsplit("_", 1)[1]
    axes = axes[::-1] if name in _TURNED else axes
    shapes[name] = tuple(sizes[axis] for axis in axes)
  tensors = {n: a for n, a in state.items() if n not in kind.extra}
  directory.check_tensors(tensors, shapes, str(file))
  return {
    field: state[name].T if name in _TURNED else state[name]
    for field, name in kind.names.items()
  }


def _scalar(state: dict[str, Any], name: str, file: pathlib.Path) -> float:
  value = state.get(name)
  if not isinstance(value, np.ndarray) or value.ndim:
    raise errors.InputError(f"{file}: no number {name}")
  return value.item()


def _k(kind: _Class, state, config, file) -> int:
  """How many latents were active in training; 0 where it is not said."""
  if "k" not in kind.extra:
    return 0
  said = [config["trainer"]["k"]] if "k" in config.get("trainer", {}) else []
  if "k" in state:
    said.append(_scalar(state, "k", file))
  if not said or any(k != said[0] or type(k) is not int for k in said):
    raise errors.InputError(
      f"{file} and {CONFIG} beside it are to give one k; they give {said}"
    )
  return said[0]


def _normalize(arrays: dict[str, Any]) -> None:
  w_dec_FD = np.asarray(arrays["w_dec_FD"], np.float32)
  norm_F = np.linalg.norm(w_dec_FD, axis=1)
  if np.all(np.abs(norm_F - 1) <= _NORM_TOLERANCE):
    return
  norm_F = np.where(norm_F > 0, norm_F, 1)  # a row of zeros stays one
  arrays["w_dec_FD"] = w_dec_FD / norm_F[:, None]
  arrays["w_enc_FD"] = arrays["w_enc_FD"] * norm_F[:, None]
  arrays["b_enc_F"] = arrays["b_enc_F"] * norm_F


def save(dictionary: sae.Sae, path: str | os.PathLike[str]) -> None:
  """Writes the directory `path`, float32, atomically file by file.

  As the class that does the same: where it differs in whether b_dec is
  subtracted from the input, that is folded into the encoder's biases. Metadata
  is kept in `config.json` under a name that dictionary_learning does not read.
  See `saelens.save` for several processes.

  Raises:
    errors.InputError: there is no such class, or a weight is NaN or infinite.
  """
  capabilities.refuse(dictionary, NAME)
  name, threshold = _class_for(dictionary)
  kind = _CLASSES[name]
  moved = conversions.centred if kind.centred else conversions.uncentred
  params = moved(dictionary).params
  values = {
    theirs: getattr(params, field) for field, theirs in kind.names.items()
  }
  k = dictionary.k
  if kind.activation != "topk":  # where it was an average
    k = provenance.training(dictionary.metadata, "k") or k
  extra: dict[str, Any] = {
    "k": np.asarray(k, np.int32),
    "threshold": np.asarray(threshold, np.float32),
  }
  if "group_sizes" in kind.extra:
    widths = provenance.training(dictionary.metadata, "matryoshka_widths")
    sizes = config_lib.group_sizes(widths)
    extra["group_sizes"] = np.asarray(sizes, np.int64)
  values |= {key: extra[key] for key in kind.extra}
  directory.write(
    path,
    weights=WEIGHTS,
    write_weights=functools.partial(
      torch_file.write_to,
      values=values,
      transposed=_TURNED,
      check=directory.check_finite,
    ),
    config=CONFIG,
    values=config_lib.values(
      dictionary, name, k if "k" in kind.extra else None
    ),
  )


def _class_for(dictionary: sae.Sae) -> tuple[str, float]:
  """The class that is saved, and its threshold where it has one for all."""
  metadata = dictionary.metadata
  if dictionary.activation == "topk":
    return "AutoEncoderTopK", provenance.training(metadata, "threshold") or -1.0
  if dictionary.activation == "gated":
    return "GatedAutoEncoder", -1.0
  if dictionary.activation == "relu":
    # Its loader would change the activations of rows of other lengths.
    plain = dictionary.centred and _unit_rows(dictionary.params.w_dec_FD)
    return "AutoEncoder" if plain else "AutoEncoderNew", -1.0
  threshold_F = _on_host(dictionary.params.threshold_F)
  threshold = float(threshold_F[0])
  one_for_all = threshold >= 0 and (threshold_F == threshold_F[0]).all()
  if not (dictionary.centred and one_for_all):
    return "JumpReluAutoEncoder", -1.0
  widths = provenance.training(metadata, "matryoshka_widths")
  nested = (
    isinstance(widths, list)
    and widths[-1:] == [dictionary.latents]
    and min(config_lib.group_sizes(widths)) > 0
  )
  return "MatryoshkaBatchTopKSAE" if nested else "BatchTopKSAE", threshold


def _unit_rows(w_dec_FD: Any) -> bool:
  return all(
    np.all(np.abs(np.linalg.norm(rows, axis=1) - 1) <= _NORM_TOLERANCE)
    for _, rows in streamed.row_blocks(w_dec_FD, streamed.BLOCK_BYTES)
  )


def _on_host(array_F: Any) -> np.ndarray:
  blocks = streamed.row_blocks(array_F, streamed.BLOCK_BYTES)
  return np.concatenate([np.asarray(rows, np.float32) for _, rows in blocks])
