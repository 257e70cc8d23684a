# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax convert`: a dictionary of any format in, one of another out."""

import argparse
import dataclasses
import filecmp
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np

from sae_jax import errors, sae
from sae_jax.formats import api, hub, provenance, saelens_config

_ROWS = 16  # that both dictionaries are tried on


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    raise errors.InputError(
      f"sae-jax convert: {message}\n{self.format_usage()}"
    )


def _parser() -> _Parser:
  parser = _Parser(
    prog="sae-jax convert",
    description=(
      "Writes a dictionary in another format. What a format is, and which"
      " dictionary is meant, is recognised by content. What the other format"
      " has no place for is said; a kind of dictionary that it has not is"
      " refused."
    ),
    allow_abbrev=False,
  )
  parser.add_argument(
    "src", metavar="SRC", help="a dictionary, or a run of one"
  )
  parser.add_argument("dst", metavar="DST", help="a new directory")
  parser.add_argument(
    "--format",
    required=True,
    choices=api.WRITTEN,
    help="the format to write",
  )
  parser.add_argument(
    "--evaluation",
    default="",
    metavar="DIR",
    help="what sae-jax evaluate wrote of it, for the model card of an upload",
  )
  parser.add_argument(
    *("--push-to-hub", "--push_to_hub"),
    metavar="USER/NAME",
    help="upload the result to this repository of the Hugging Face hub",
  )
  return parser


def usage() -> str:
  return _parser().format_help()


def run(words: Sequence[str]) -> dict[str, Any]:
  """Converts, or finds that it was done already.

  Args:
    words: the command line after `convert`.

  Raises:
    errors.InputError: there is no dictionary, the format has none of its kind,
      or the destination holds something else.
  """
  asked = _parser().parse_args(words)
  place = _destination(asked.dst)
  form, origin = api.find(asked.src)
  source = api.load_sae(origin)
  found = {"format": form.NAME, "sha256": api.hash_sae(origin)}
  source = dataclasses.replace(
    source,
    metadata=sae.Metadata({**source.metadata, provenance.ORIGIN: found}),
  )
  aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
  try:
    # Of the same name: a name may say what it is of.
    written = aside / place.name
    aside.mkdir(parents=True)
    api.save_sae(source, written, format=asked.format)
    back = api.load_sae(written)
    result = {
      "sae": str(place),
      "format": asked.format,
      "source": {"path": asked.src, **found},
      "changed": list(_changes(source, back, asked.format)),
      "difference": _difference(source, back),
    }
    _put(written, place)
  finally:
    shutil.rmtree(aside, ignore_errors=True)
  for line in result["changed"]:
    print(line, file=sys.stderr)
  if asked.push_to_hub:
    result["hub"] = hub.push(
      place, asked.push_to_hub, origin=origin, evaluation=asked.evaluation
    )
  return result


def _destination(path: str) -> pathlib.Path:
  if "://" in path:
    raise errors.InputError(
      f"DST={path}: dictionaries are written to a directory; give a path"
    )
  place = pathlib.Path(path).expanduser().absolute()
  if not place.name or place.name == "..":
    raise errors.InputError(f"DST={path}: name a new directory")
  return place


def _put(written: pathlib.Path, place: pathlib.Path) -> None:
  """Moves what was written to `place`, or finds the same there."""
  empty = place.is_dir() and not any(place.iterdir())
  if not place.exists() or empty:
    os.replace(written, place)
    return
  files = [p for p in [written, *written.rglob("*")] if p.is_file()]
  for file in files:
    there = place / file.relative_to(written)
    if not there.is_file() or not filecmp.cmp(file, there, shallow=False):
      raise errors.InputError(
        f"{place} exists, and {there.name} in it is not what this conversion"
        " writes; remove it, or choose another DST"
      )
  print(f"{place} is already converted", file=sys.stderr)


def _changes(source: sae.Sae, back: sae.Sae, format: str) -> Iterator[str]:
  """What is not as it was when the result is read again."""
  if format == "saelens" and not saelens_config.opens_in_saelens(source):
    yield (
      "SAELens itself has no class for this dictionary: only sae_jax opens what"
      " was written"
    )
  for name in ("activation", "k", "centred", "layer_norm", "sources"):
    before, after = getattr(source, name), getattr(back, name)
    if before != after:
      yield f"{name}: {before} became {after}{_WHY.get(name, '')}"
  before, after = (d.metadata[provenance.NORMS] for d in (source, back))
  if before != after:
    yield (
      f"decoder rows of length {before} (least, mean, greatest) became {after},"
      " and activations what makes up for it"
    )
  missing = [
    name
    for name, value in source.metadata.items()
    if value is not None and back.metadata.get(name) != value
    if name != provenance.NORMS
  ]
  if missing:
    yield f"metadata lost or changed: {', '.join(missing)}"


_WHY = {
  "centred": ", and what b_dec does to the encoder is in its biases",
  "k": ": how many places programs that are compiled once give a row",
}


def _difference(source: sae.Sae, back: sae.Sae) -> dict[str, float]:
  """How far the two are apart on random rows, as parts of the largest value.

  Both near 1e-6 but for the rounding of what was folded; a latent that is just
  at its threshold may make it more.
  """
  # Metadata is part of what is compiled: without it, both are one program.
  source, back = (
    dataclasses.replace(d, metadata=sae.Metadata()) for d in (source, back)
  )
  rng = np.random.default_rng(0)
  x_BD = rng.normal(size=(_ROWS, source.d_model))
  if source.d_out == source.d_model:
    # Rows about b_dec, as far from it as it is from 0.
    b_dec_D = np.asarray(source.params.b_dec_D, np.float64)
    x_BD = b_dec_D + max(1.0, np.sqrt(np.mean(b_dec_D**2))) * x_BD
  x_BD = jnp.asarray(x_BD, jnp.float32)
  acts, outputs = [], []
  for dictionary in (source, back):
    acts_BF = sae.encode_dense(dictionary, x_BD)
    out_BE = jnp.dot(acts_BF, dictionary.params.w_dec_FD)
    acts.append(np.asarray(acts_BF))
    outputs.append(np.asarray(sae.add_rest(dictionary, out_BE, x_BD)))
  return {"activations": _apart(*acts), "outputs": _apart(*outputs)}


def _apart(a: np.ndarray, b: np.ndarray) -> float:
  apart = np.max(np.abs(a - b)) / max(1e-30, np.max(np.abs(a)))
  return float(f"{apart:.2g}")
