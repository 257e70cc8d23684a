# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`cfg.json` of SAELens's layout: read, checked, with its defaults."""

import json
import pathlib
from typing import Any

from sae_jax import errors

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"


def read(path: pathlib.Path) -> dict[str, Any]:
  """The configuration of a TopK dictionary that `saelens.load` understands.

  Raises:
    errors.InputError: there is none, or it asks for something else; it is
      named.
  """
  try:
    config = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise errors.InputError(
      f"{path}: no such file; a dictionary in SAELens's layout is a directory"
      f" with {CONFIG} and {WEIGHTS}"
    ) from None
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise errors.InputError(f"{path} is not JSON: {error}") from None
  if not isinstance(config, dict):
    raise errors.InputError(f"{path} is not a JSON object")
  config.setdefault("metadata", {})
  if not isinstance(config["metadata"], dict):
    raise errors.InputError(f"{path}: metadata is not a JSON object")
  written_by = config["metadata"].get("sae_lens_version") or config.get(
    "sae_lens_version"
  )
  if not _is_version_6(written_by):
    raise errors.InputError(
      f"{path}: written by SAELens {written_by or '< 6 (no version given)'};"
      " load it in SAELens >= 6 and save it again"
    )
  _check_supported(config, path)
  return config


def _is_version_6(text: Any) -> bool:
  major = str(text or "").split(".")[0]
  return major.isdigit() and int(major) >= 6


def _check_supported(config: dict[str, Any], path: pathlib.Path) -> None:
  supported = {
    "architecture": ("topk",),
    "normalize_activations": ("none",),
    "reshape_activations": ("none",),
    "finetuning_scaling_factor": (False, None),
    "apply_b_dec_to_input": (True, False),
    "rescale_acts_by_decoder_norm": (True, False),
  }
  defaults = {
    "normalize_activations": "none",
    "reshape_activations": "none",
    "finetuning_scaling_factor": False,
    "apply_b_dec_to_input": True,
    "rescale_acts_by_decoder_norm": False,
  }
  for name, choices in supported.items():
    value = config.setdefault(name, defaults.get(name))
    if value not in choices:
      raise errors.InputError(
        f"{path}: {name}={value!r} is not supported; supported:"
        f" {', '.join(repr(c) for c in choices if c is not None)}"
      )
  for name in ("d_in", "d_sae", "k"):
    value = config.get(name)
    if type(value) is not int or value < 1:
      raise errors.InputError(f"{path}: {name}={value!r} is not a number >= 1")
  if config["k"] > config["d_sae"]:
    raise errors.InputError(
      f"{path}: k={config['k']} is more than d_sae={config['d_sae']}"
    )
