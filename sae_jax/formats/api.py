# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads a dictionary by what its directory holds; saves it by format's name."""

import os
import pathlib

from sae_jax import artifacts, errors, sae
from sae_jax.formats import saelens

_SAVE = {"saelens": saelens.save}


def load_sae(path: str | os.PathLike[str]) -> sae.Sae:
  """Reads a dictionary; the format is recognised by its content.

  `path` may also be a training run, whose `sae/` is taken.

  Raises:
    errors.InputError: there is no dictionary that is understood, or it is
      damaged.
  """
  return saelens.load(_place(pathlib.Path(path).expanduser()))


def map_sae(path: str | os.PathLike[str]) -> sae.Sae:
  """What `load_sae` reads, as memory maps: rows are read when looked at.

  Raises:
    errors.InputError: see `load_sae`.
  """
  return saelens.mapped(_place(pathlib.Path(path).expanduser()))


def open_decoder(path: str | os.PathLike[str]) -> saelens.Decoder:
  """The decoder rows of what `load_sae(path)` reads, without the rest of it.

  Raises:
    errors.InputError: see `load_sae`.
  """
  return saelens.Decoder(_place(pathlib.Path(path).expanduser()))


def hash_sae(path: str | os.PathLike[str]) -> str:
  """SHA-256 of the file of weights that `load_sae(path)` reads.

  Raises:
    errors.InputError: see `load_sae`.
  """
  place = _place(pathlib.Path(path).expanduser())
  return artifacts.hash_file(place / saelens.WEIGHTS)


def _place(path: pathlib.Path) -> pathlib.Path:
  """The directory of the dictionary that is meant by `path`."""
  if not path.exists():
    raise errors.InputError(f"{path}: no such directory")
  for place in (path, path / "sae"):
    if saelens.is_saelens(place):
      return place
  several = [
    p
    for pattern in ("[0-9]*", "sae/[0-9]*")
    for p in path.glob(pattern)
    if saelens.is_saelens(p)
  ]
  if several:
    raise errors.InputError(
      f"{path} holds {len(several)} dictionaries, those of a sweep; name one of"
      f" them, such as {min(several)}"
    )
  held = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
  raise errors.InputError(
    f"{path} holds no dictionary of a known format ({', '.join(_SAVE)}:"
    f" {saelens.CONFIG} and {saelens.WEIGHTS}); it holds"
    f" {', '.join(held[:8]) or 'nothing'}"
  )


def save_sae(
  dictionary: sae.Sae,
  path: str | os.PathLike[str],
  format: str = "saelens",
) -> None:
  """Writes a dictionary to the directory `path`.

  Raises:
    errors.InputError: no such format, or weights that are not finite.
  """
  if format not in _SAVE:
    raise errors.InputError(
      f"format={format!r} is not supported; supported: {', '.join(_SAVE)}"
    )
  _SAVE[format](dictionary, pathlib.Path(path).expanduser())
