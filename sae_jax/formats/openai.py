# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""State dicts of openai/sparse_autoencoder: one .pt file.

`encoder.weight` [F, D], `decoder.weight` [D, F], `pre_bias` [D], `latent_bias`
[F], statistics, and `activation`, a class's name. TopK dictionaries bring every
row to mean 0 and deviation 1 first, and the output back; ReLU ones do not:
that is what the library goes by, the file does not say so.

Paper: Gao et al., arXiv 2406.04093.
"""

import os
import pathlib
from typing import Any

import numpy as np

from sae_jax import errors, sae
from sae_jax.formats import (
  capabilities,
  conversions,
  provenance,
  tensors,
  torch_file,
)

NAME = "openai"
FILE = "autoencoder.pt"

_ARRAYS = ("encoder.weight", "decoder.weight", "pre_bias", "latent_bias")
_POST = "ReLU"  # what is done to the k largest; Identity is not supported


def matches(path: pathlib.Path) -> bool:
  """Whether `path` is such a file, or a directory with one."""
  return _file(path) is not None


def load(path: str | os.PathLike[str]) -> sae.Sae:
  """Reads a TopK or ReLU dictionary, as float32.

  Raises:
    errors.InputError: the file is missing or damaged, shapes disagree, or it
      is another kind of dictionary.
  """
  path = pathlib.Path(path)
  file = _file(path)
  if file is None:
    raise errors.InputError(
      f"{path}: no .pt file with {', '.join(_ARRAYS)} (tied decoders are not"
      " supported)"
    )
  found = tensors.read(file)
  f, d = tensors.matrix_shape(file, found, "encoder.weight")
  shapes = {"encoder.weight": (f, d), "decoder.weight": (d, f)}
  shapes |= {"pre_bias": (d,), "latent_bias": (f,)}
  tensors.check_shapes(file, found, shapes)
  activation, k = _activation(file, found, f)
  return sae.make_sae(
    conversions.params(
      w_enc_FD=found["encoder.weight"],
      w_dec_FD=found["decoder.weight"].T,
      b_enc_F=found["latent_bias"],
      b_dec_D=found["pre_bias"],
    ),
    k,
    activation=activation,
    layer_norm=activation == "topk",
  )


def _activation(
  file: pathlib.Path, found: dict[str, Any], latents: int
) -> tuple[str, int]:
  name = found.get("activation", "ReLU")
  if name == "ReLU":
    return "relu", provenance.places({}, latents, file)
  state = found.get("activation_state_dict")
  if name != "TopK" or not isinstance(state, dict):
    raise errors.InputError(
      f"{file}: activation={name!r} is not supported; TopK and ReLU are"
    )
  post = state.get("postact_fn", _POST)
  if post != _POST:
    raise errors.InputError(
      f"{file}: TopK with postact_fn={post!r} keeps negative activations,"
      f" which is not supported; {_POST} is"
    )
  k = int(state.get("k", 0))
  if not 1 <= k <= latents:
    raise errors.InputError(
      f"{file}: k={k} is not between 1 and its {latents} latents"
    )
  return "topk", k


def save(dictionary: sae.Sae, path: str | os.PathLike[str]) -> None:
  """Writes `path`, a .pt file, or `autoencoder.pt` in the directory `path`.

  Metadata is lost: the format has none.

  Raises:
    errors.InputError: the format has no such dictionaries, or a weight is not
      finite.
  """
  capabilities.refuse(dictionary, NAME)
  if dictionary.layer_norm != (dictionary.activation == "topk"):
    raise errors.InputError(
      f"the format {NAME} has TopK dictionaries with layer norm and ReLU ones"
      f" without; this {dictionary.activation} dictionary has"
      f" {'it' if dictionary.layer_norm else 'none'}: choose another format,"
      " such as saelens"
    )
  p = conversions.centred(dictionary).params
  f = p.latents
  arrays = {
    "pre_bias": np.asarray(p.b_dec_D, np.float32),
    "latent_bias": np.asarray(p.b_enc_F, np.float32),
    "encoder.weight": np.asarray(p.w_enc_FD, np.float32),
    "decoder.weight": np.ascontiguousarray(
      np.asarray(p.w_dec_FD, np.float32).T
    ),
  }
  tensors.check_finite("the dictionary to save", arrays)
  state: dict[str, Any] = {
    **arrays,
    # What training would have counted; the library insists on them.
    "stats_last_nonzero": np.zeros(f, np.int64),
    "latents_activation_frequency": np.ones(f, np.float32),
    "latents_mean_square": np.zeros(f, np.float32),
    "activation": "ReLU",
    "activation_state_dict": {},
  }
  if dictionary.activation == "topk":
    state["activation"] = "TopK"
    state["activation_state_dict"] = {"k": dictionary.k, "postact_fn": _POST}
  path = pathlib.Path(path)
  if path.suffix != ".pt":
    path.mkdir(parents=True, exist_ok=True)
    path = path / FILE
  torch_file.write(path, state)


def _file(path: pathlib.Path) -> pathlib.Path | None:
  files = sorted(path.glob("*.pt")) if path.is_dir() else [path]
  for file in files:
    if file.is_file() and set(tensors.shapes(file)) >= set(_ARRAYS):
      return file
  return None
