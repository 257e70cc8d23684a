# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`cfg.json` of SAELens's layout: read, checked, with its defaults."""

import dataclasses
import pathlib
from typing import Any

from sae_jax import errors, sae
from sae_jax.formats import directory

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What a name in `architecture` stands for."""

  activation: str
  transcoder: bool = False
  skip: bool = False
  ours: bool = False  # SAELens has none of this name


ARCHITECTURES = {
  "topk": Architecture("topk"),
  "standard": Architecture("relu"),
  "jumprelu": Architecture("jumprelu"),
  "gated": Architecture("gated"),
  "transcoder": Architecture("relu", True),
  "skip_transcoder": Architecture("relu", True, True),
  "jumprelu_transcoder": Architecture("jumprelu", True),
  "jumprelu_skip_transcoder": Architecture("jumprelu", True, True),
  # SAELens 6.54 has transcoders of the two kinds above only.
  "topk_transcoder": Architecture("topk", True, ours=True),
  "topk_skip_transcoder": Architecture("topk", True, True, ours=True),
  "gated_transcoder": Architecture("gated", True, ours=True),
  "gated_skip_transcoder": Architecture("gated", True, True, ours=True),
}
_TRAINING = ("batchtopk", "matryoshka_batchtopk")


def name(dictionary: sae.Sae) -> str:
  """The `architecture` of a dictionary.

  A dictionary between two hooks of one width is a transcoder where SAELens has
  one of its kind, and else a dictionary that does not subtract b_dec, which is
  the same.
  """
  skip = dictionary.params.w_skip_DE is not None
  must = skip or dictionary.d_out != dictionary.d_model
  may = not dictionary.centred and bool(
    dictionary.metadata.get("hook_name_out")
  )
  wanted = (
    dictionary.activation,
    must or (may and _has_transcoder(dictionary.activation)),
    skip,
  )
  return {
    (kind.activation, kind.transcoder, kind.skip): name
    for name, kind in ARCHITECTURES.items()
  }[wanted]


def _has_transcoder(activation: str) -> bool:
  return any(
    kind.activation == activation and kind.transcoder and not kind.ours
    for kind in ARCHITECTURES.values()
  )


def opens_in_saelens(dictionary: sae.Sae) -> bool:
  """Whether SAELens itself has a class for what `saelens.save` writes."""
  kind = ARCHITECTURES[name(dictionary)]
  plain = not (dictionary.centred or dictionary.layer_norm)
  return not kind.ours and (plain or not kind.transcoder)


def read(path: pathlib.Path) -> dict[str, Any]:
  """The configuration of a dictionary that `saelens.load` understands.

  Raises:
    errors.InputError: there is none, or it asks for something else; it is
      named.
  """
  if not path.is_file():
    raise errors.InputError(
      f"{path}: no such file; a dictionary in SAELens's layout is a directory"
      f" with {CONFIG} and {WEIGHTS}"
    )
  config = directory.read_json(path)
  config.setdefault("metadata", {})
  if not isinstance(config["metadata"], dict):
    raise errors.InputError(f"{path}: metadata is not a JSON object")
  written_by = config.get("sae_lens_version") or config["metadata"].get(
    "sae_lens_version"
  )
  if not _is_version_6(written_by):
    config = _from_before_6(config, path)
  _check_supported(config, path)
  _check_numbers(config, path)
  return config


def _is_version_6(text: Any) -> bool:
  major = str(text or "").split(".")[0]
  return major.isdigit() and int(major) >= 6


# What SAELens keeps of a configuration that knew of no metadata. Without the
# version, which would make what is saved one of before.
_METADATA = (
  *("model_name", "hook_name", "model_class_name", "hook_head_index"),
  *("model_from_pretrained_kwargs", "prepend_bos", "exclude_special_tokens"),
  *("neuronpedia_id", "context_size", "seqpos_slice", "dataset_path"),
  "sae_lens_training_version",
)
_RENAMED = {
  "hook_point": "hook_name",
  "hook_point_head_index": "hook_head_index",
  "activation_fn_str": "activation_fn",
}


def _from_before_6(old: dict[str, Any], path: pathlib.Path) -> dict[str, Any]:
  """A configuration that tells of the model and the SAE in one, as SAELens 6.

  Its `handle_pre_6_0_config` (sae_lens/loading/pretrained_sae_loaders.py).
  """
  old = {_RENAMED.get(name, name): value for name, value in old.items()}
  config = {k: v for k, v in old.items() if k not in _METADATA}
  activation = old.get("activation_fn") or "relu"
  k = (old.get("activation_fn_kwargs") or {}).get("k")
  if activation == "topk" and k is not None:
    config |= {"architecture": "topk", "k": k}
  elif activation not in ("relu", "topk"):
    raise errors.InputError(
      f"{path}: activation_fn={activation!r} is not supported; supported:"
      " 'relu', 'topk'"
    )
  config.setdefault("architecture", "standard")
  if "hook_z" in str(old.get("hook_name")):
    config.setdefault("reshape_activations", "hook_z")
  if not isinstance(config.get("normalize_activations"), str):
    scaled = config.pop("normalize_activations", None)
    if scaled:
      config["normalize_activations"] = "expected_average_only_in"
  metadata = {name: old[name] for name in _METADATA if name in old}
  config["metadata"] = {"prepend_bos": True, **metadata}
  return config


def _check_supported(config: dict[str, Any], path: pathlib.Path) -> None:
  if config.get("architecture") in _TRAINING:
    raise errors.InputError(
      f"{path}: architecture={config['architecture']!r} is a checkpoint of"
      " SAELens's training; save what it uses afterwards with"
      " save_inference_model, which makes it a jumprelu one"
    )
  supported = {
    "architecture": tuple(ARCHITECTURES),
    "normalize_activations": ("none", "layer_norm"),
    "reshape_activations": ("none", "hook_z"),
    "finetuning_scaling_factor": (False, None),
    "apply_b_dec_to_input": (True, False),
    "rescale_acts_by_decoder_norm": (True, False),
  }
  kind = ARCHITECTURES.get(str(config.get("architecture")))
  defaults = {
    "normalize_activations": "none",
    "reshape_activations": "none",
    "finetuning_scaling_factor": False,
    "apply_b_dec_to_input": kind is not None and not kind.transcoder,
    "rescale_acts_by_decoder_norm": False,
  }
  for name, choices in supported.items():
    value = config.setdefault(name, defaults.get(name))
    if value not in choices:
      raise errors.InputError(
        f"{path}: {name}={value!r} is not supported; supported:"
        f" {', '.join(repr(c) for c in choices if c is not None)}"
      )
  assert kind is not None
  # SAELens leaves the output of its transcoders normalised; it says nothing
  # of by what.
  if kind.transcoder and config["normalize_activations"] != "none":
    raise errors.InputError(
      f"{path}: normalize_activations={config['normalize_activations']!r} is"
      f" not supported with architecture={config['architecture']!r}"
    )


def _check_numbers(config: dict[str, Any], path: pathlib.Path) -> None:
  kind = ARCHITECTURES[config["architecture"]]
  config.setdefault("d_out", config.get("d_in"))
  names = ("d_in", "d_out", "d_sae", *(["k"] * (kind.activation == "topk")))
  for name in names:
    value = config.get(name)
    if type(value) is not int or value < 1:
      raise errors.InputError(f"{path}: {name}={value!r} is not a number >= 1")
  if "k" in names and config["k"] > config["d_sae"]:
    raise errors.InputError(
      f"{path}: k={config['k']} is more than d_sae={config['d_sae']}"
    )
  if not kind.transcoder and config["d_out"] != config["d_in"]:
    raise errors.InputError(
      f"{path}: d_out={config['d_out']} is not d_in={config['d_in']}, but"
      f" architecture={config['architecture']!r} is no transcoder"
    )
