# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a dictionary's metadata says, kept by formats that have no place for it.

Key names are SAELens's; those that are ours alone begin with `sae_jax_`.
"""

import re
from collections.abc import Mapping
from typing import Any

from sae_jax import errors, sae

# The key under which other people's configs carry our metadata.
KEY = "sae_jax_metadata"
# Found anew by every load.
NORMS = "decoder_norms"
# What `sae-jax convert` read: its format, and the hash of its weights.
ORIGIN = "sae_jax_converted_from"
_PLACES, _SOURCES = "sae_jax_places", "sae_jax_sources"
_MOST_PLACES = 1024


def kept(dictionary: sae.Sae) -> dict[str, Any]:
  """The metadata to write, with what a Sae knows and no format asks for."""
  metadata = {k: v for k, v in dictionary.metadata.items() if k != NORMS}
  if dictionary.activation != "topk":
    metadata[_PLACES] = dictionary.k
  if dictionary.sources > 1:
    metadata[_SOURCES] = dictionary.sources
  return metadata


def carried(config: Mapping[str, Any], where: Any) -> dict[str, Any] | None:
  """Our metadata in somebody else's config; None where it is not from us.

  Raises:
    errors.InputError: `where`, the file, has something else in its place.
  """
  metadata = config.get(KEY)
  if metadata is not None and not isinstance(metadata, dict):
    raise errors.InputError(f"{where}: {KEY} is not a JSON object")
  return metadata


def places(metadata: Mapping[str, Any], latents: int, where: Any) -> int:
  """`Sae.k` of a dictionary that has no fixed number of active latents.

  Raises:
    errors.InputError: `where`, the file, says something that is no number.
  """
  return min(_number(metadata, _PLACES, _MOST_PLACES, where), latents)


def sources(metadata: Mapping[str, Any], where: Any) -> int:
  """Of how many sources' rows a row is made; raises as `places` does."""
  return _number(metadata, _SOURCES, 1, where)


def _number(metadata, name, default, where) -> int:
  value = metadata.get(name, default)
  if type(value) is not int or value < 1:
    raise errors.InputError(f"{where}: {name}={value!r} is not a number >= 1")
  return value


def training(metadata: Mapping[str, Any], name: str) -> Any:
  """What SAELens notes of the training: `k`, `matryoshka_widths`, …"""
  details = metadata.get("training_architecture_details")
  return details.get(name) if isinstance(details, Mapping) else None


def layer(metadata: Mapping[str, Any]) -> tuple[int | None, str | None]:
  """The layer and the site ("resid_post", …) of the hook, where it is known."""
  found = re.fullmatch(
    r"blocks\.(\d+)\.(?:hook_)?(\w+)", str(metadata.get("hook_name"))
  )
  return (int(found[1]), found[2]) if found else (None, None)
