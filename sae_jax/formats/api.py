# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads a dictionary by what its directory holds; saves it by format's name."""

import dataclasses
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts, errors, sae
from sae_jax.formats import (
  crosscoders,
  decoder,
  dictionary_learning,
  gemma_scope,
  llamascopium,
  openai,
  provenance,
  saelens,
  sparsify,
)

# Asked in this order whether something is theirs: first those that are known
# by names of files, then those that are known by names of tensors.
_FORMATS: tuple[Any, ...] = (
  saelens,
  sparsify,
  llamascopium,
  gemma_scope,
  crosscoders,
  dictionary_learning,
  openai,
)
_SAVE = {form.NAME: form.save for form in _FORMATS}
WRITTEN = tuple(_SAVE)
# The file of weights, of formats that have one: others may lie beside it.
_FILE = {
  form.NAME: form.WEIGHTS for form in (saelens, sparsify, dictionary_learning)
}
_SUFFIXES = (".safetensors", ".pt", ".npz")  # of the other formats' weights
_BLOCK_BYTES = 64 << 20  # of weights that are checked at a time


def load_sae(path: str | os.PathLike[str]) -> sae.Sae:
  """Reads a dictionary as float32; the format is recognised by its content.

  `path` is what its makers would give it by: mostly a directory, sometimes a
  file; or a training run of ours, whose `sae/` is taken. How long its decoder
  rows are is noted in the metadata, `decoder_norms`: least, mean, greatest.

  Raises:
    errors.InputError: there is no dictionary that is understood, it is damaged,
      or a weight is not finite.
  """
  form, place = find(path)
  return check(form.load(place), place)


def map_sae(path: str | os.PathLike[str]) -> sae.Sae:
  """What `load_sae` reads, as it lies on disk: rows are read when looked at.

  For a dictionary that is larger than a host's memory. Formats that can be
  mapped are; what has to be folded is loaded. Whether weights are finite is not
  looked at.

  Raises:
    errors.InputError: see `load_sae`.
  """
  form, place = find(path)
  return form.load(place)


def open_decoder(path: str | os.PathLike[str]) -> decoder.Decoder:
  """The decoder rows of what `load_sae(path)` reads, without the rest of it.

  Raises:
    errors.InputError: see `load_sae`.
  """
  form, place = find(path)
  return decoder.Decoder(form.load(place), place)


def hash_sae(path: str | os.PathLike[str]) -> str:
  """SHA-256 of the weights that `load_sae(path)` reads.

  Of their file; of several, of their names and hashes.

  Raises:
    errors.InputError: see `load_sae`.
  """
  form, place = find(path)
  if form.NAME in _FILE and place.is_dir():
    return artifacts.hash_file(place / _FILE[form.NAME])
  # Llama Scope's weights are in a folder of the dictionary's directory.
  files = (
    [place]
    if place.is_file()
    else _weights(place) or _weights(place / "checkpoints")
  )
  hashes = {file.name: artifacts.hash_file(file) for file in files}
  if len(hashes) == 1:
    return next(iter(hashes.values()))
  return artifacts.hash_json(hashes)


def _weights(place: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    file
    for file in place.glob("[!.]*")
    if file.suffix in _SUFFIXES and file.is_file()
  )


def save_sae(
  dictionary: sae.Sae,
  path: str | os.PathLike[str],
  format: str = "saelens",
) -> None:
  """Writes a dictionary to the directory `path`.

  Raises:
    errors.InputError: no such format, a format that has no such dictionaries,
      or weights that are not finite.
  """
  if format not in _SAVE:
    raise errors.InputError(
      f"format={format!r} is not supported; supported: {', '.join(_SAVE)}"
    )
  _SAVE[format](dictionary, pathlib.Path(path).expanduser())


def find(path: str | os.PathLike[str]) -> tuple[Any, pathlib.Path]:
  """The format of what is meant by `path`, and its directory or file.

  Raises:
    errors.InputError: there is none, or several.
  """
  path = pathlib.Path(path).expanduser()
  if not path.exists():
    raise errors.InputError(f"{path}: no such directory")
  for place in (path, path / "sae"):
    for form in _FORMATS:
      if form.matches(place):
        return form, place
  several = [
    p
    for pattern in ("*", "sae/*")
    for p in path.glob(pattern)
    if p.is_dir() and any(form.matches(p) for form in _FORMATS)
  ]
  if len(several) == 1:
    raise errors.InputError(
      f"{path} is no dictionary, but {several[0]} is one: name that"
    )
  if several:
    raise errors.InputError(
      f"{path} holds {len(several)} dictionaries; name one of them, such as"
      f" {min(several)}"
    )
  known = ", ".join(form.NAME for form in _FORMATS)
  if path.is_file():
    raise errors.InputError(
      f"{path} is no dictionary of a known format: {known}"
    )
  held = sorted(p.name for p in path.iterdir())
  raise errors.InputError(
    f"{path} holds no dictionary of a known format ({known}); it holds"
    f" {', '.join(held[:8]) or 'nothing'}"
  )


def check(dictionary: sae.Sae, place: pathlib.Path) -> sae.Sae:
  """The dictionary as float32, if it is one; with its norms in the metadata.

  Raises:
    errors.InputError: a weight is not finite, or k is not of this dictionary.
  """
  if not 1 <= dictionary.k <= dictionary.latents:
    raise errors.InputError(
      f"{place}: k={dictionary.k}, but there are {dictionary.latents} latents"
    )
  arrays, norms = {}, []
  for field in dataclasses.fields(dictionary.params):
    array = getattr(dictionary.params, field.name)
    if array is None:
      continue
    # A copy: of a memory map nothing must be left, files may change.
    host = np.array(array, np.float32, order="C")
    _check_finite(host, field.name, place)
    if field.name == "w_dec_FD":
      norm_F = np.sqrt(np.einsum("fd,fd->f", host, host))
      norms = [norm_F.min(), norm_F.mean(dtype=np.float64), norm_F.max()]
    arrays[field.name] = jnp.asarray(host)
  metadata = {
    **dictionary.metadata,
    # Four digits: metadata is part of what a compiled program depends on, and
    # those of rows of norm 1 are to be the same.
    provenance.NORMS: [float(f"{norm:.4g}") for norm in norms],
  }
  return dataclasses.replace(
    dictionary,
    params=sae.Params(**arrays),
    metadata=sae.Metadata(metadata),
  )


def _check_finite(array: np.ndarray, name: str, place: pathlib.Path) -> None:
  rows = max(1, _BLOCK_BYTES * len(array) // max(1, array.nbytes))
  for first in range(0, len(array), rows):
    wrong = np.argwhere(~np.isfinite(array[first : first + rows]))
    if wrong.size:
      raise errors.InputError(
        f"{place}: {name.rsplit('_', 1)[0]} holds NaN or infinity, first in"
        f" row {first + wrong[0, 0]}"
      )
