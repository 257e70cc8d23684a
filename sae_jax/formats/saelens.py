# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""SAELens's layout (version 6 and later), which is also ours.

A directory with `sae_weights.safetensors` (`W_enc` [D, F], `W_dec` [F, D],
`b_enc` [F], `b_dec` [D]) and `cfg.json`, which is written last: a directory
without it is not a dictionary.
"""

import functools
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from sae_jax import artifacts, errors, sae, version
from sae_jax.formats import memory_maps, saelens_config, streamed

CONFIG, WEIGHTS = saelens_config.CONFIG, saelens_config.WEIGHTS
# The release whose layout is written. Below 6.0.0 SAELens would convert it.
LAYOUT_VERSION = "6.54.0"
_TENSORS = ("W_enc", "W_dec", "b_enc", "b_dec")
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


def save(dictionary: sae.Sae, path: str | os.PathLike[str]) -> None:
  """Writes the directory `path`, float32, atomically file by file.

  `dictionary.metadata` goes into `cfg.json`, with SAELens's defaults for what
  it lacks. A dictionary that is in `path` loses its `cfg.json` before its
  weights. Where several processes train, all of them call this and the first
  one writes; no host holds more than a block of rows besides its own part.

  Raises:
    errors.InputError: a weight is NaN or infinite.
  """
  path = pathlib.Path(path)
  config = {
    "architecture": "topk",
    "k": dictionary.k,
    "rescale_acts_by_decoder_norm": False,
    "d_in": dictionary.d_model,
    "d_sae": dictionary.latents,
    "dtype": "float32",
    "device": "cpu",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "metadata": {
      **_METADATA_DEFAULTS,
      "sae_jax_version": version.__version__,
      **dictionary.metadata,
    },
  }
  p = dictionary.params
  write_weights = functools.partial(
    streamed.write,
    arrays={
      "W_enc": p.w_enc_FD,
      "W_dec": p.w_dec_FD,
      "b_enc": p.b_enc_F,
      "b_dec": p.b_dec_D,
    },
    transposed=("W_enc",),
    check=functools.partial(_check_finite, "the dictionary to save"),
  )
  if jax.process_index():
    write_weights(None)
    return
  path.mkdir(parents=True, exist_ok=True)
  with artifacts.replacing(path / WEIGHTS) as file:
    write_weights(file)
    # Only now: until here, what was in `path` is whole.
    (path / CONFIG).unlink(missing_ok=True)
  artifacts.write_json_atomic(path / CONFIG, config)


def is_saelens(path: pathlib.Path) -> bool:
  """Whether the directory holds a dictionary in this layout."""
  return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def load(path: str | os.PathLike[str]) -> sae.Sae:
  """Reads a TopK dictionary, ours or SAELens's, as float32.

  `rescale_acts_by_decoder_norm` and `apply_b_dec_to_input: false` are folded
  into the weights, which gives the same activations and reconstructions.

  Raises:
    errors.InputError: a file is missing or damaged, the configuration asks
      for something that is not implemented (it is named), shapes disagree, or
      a weight is NaN or infinite.
  """
  path = pathlib.Path(path)
  config = saelens_config.read(path / CONFIG)
  tensors = _read_weights(path / WEIGHTS)
  _check_shapes(tensors, config, path)
  for name, array in tensors.items():
    _check_finite(os.fspath(path / WEIGHTS), name, array)
  params = _fold(tensors, config)
  return sae.make_sae(params, config["k"], config["metadata"])


def mapped(path: str | os.PathLike[str]) -> sae.Sae:
  """What `load` gives, as memory maps of the file: read when looked at.

  For a dictionary that is larger than a host's memory. Whether its weights are
  finite is not looked at. One that has to be folded is loaded.

  Raises:
    errors.InputError: see `load`.
  """
  path = pathlib.Path(path)
  config = saelens_config.read(path / CONFIG)
  if config["rescale_acts_by_decoder_norm"] or (
    not config["apply_b_dec_to_input"]
  ):
    return load(path)
  tensors: dict[str, Any] = memory_maps.tensors(path / WEIGHTS)
  _check_shapes(tensors, config, path)
  params = sae.Params(
    w_enc_FD=tensors["W_enc"].T,
    w_dec_FD=tensors["W_dec"],
    b_enc_F=tensors["b_enc"],
    b_dec_D=tensors["b_dec"],
  )
  return sae.make_sae(params, config["k"], config["metadata"])


class Decoder:
  """The decoder of a dictionary on disk, read row by row.

  For what needs a few directions of a dictionary that may be larger than
  memory.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Raises errors.InputError where `load` would for its configuration."""
    path = pathlib.Path(path)
    config = saelens_config.read(path / CONFIG)
    self.latents: int = config["d_sae"]
    self.d_model: int = config["d_in"]
    self.metadata: dict[str, Any] = config["metadata"]
    self._path = path / WEIGHTS

  def units(self, latents_N: Any) -> np.ndarray:
    """Directions of latents, [N, D] float32 of length 1.

    Raises:
      errors.InputError: the file is damaged, there is no such latent, or its
        row is zero or not finite.
    """
    latents_N = np.asarray(latents_N, np.int64)
    outside = latents_N[(latents_N < 0) | (latents_N >= self.latents)]
    if outside.size:
      raise errors.InputError(
        f"{self._path} has no latent {outside[0]}; its latents are 0 to"
        f" {self.latents - 1}"
      )
    rows_ND = np.zeros((len(latents_N), self.d_model), np.float32)
    try:
      with safetensors.safe_open(self._path, framework="numpy") as file:
        decoder = file.get_slice("W_dec")
        for row_D, latent in zip(rows_ND, latents_N.tolist(), strict=True):
          row_D[:] = decoder[latent : latent + 1][0]
    except (OSError, safetensors.SafetensorError) as error:
      raise errors.InputError(f"{self._path} cannot be read: {error}") from None
    norm_N1 = np.linalg.norm(rows_ND.astype(np.float64), axis=1, keepdims=True)
    wrong = np.flatnonzero(~((norm_N1[:, 0] > 0) & np.isfinite(norm_N1[:, 0])))
    if wrong.size:
      raise errors.InputError(
        f"{self._path}: latent {latents_N[wrong[0]]} has a decoder row of"
        f" length {norm_N1[wrong[0], 0]}, which is no direction"
      )
    return (rows_ND / norm_N1).astype(np.float32)


def _read_weights(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    tensors = safetensors.numpy.load_file(path)
  except FileNotFoundError:
    raise errors.InputError(f"{path}: no such file") from None
  except safetensors.SafetensorError as error:
    raise errors.InputError(
      f"{path} is not a complete safetensors file: {error}"
    ) from None
  return {name: np.asarray(a, np.float32) for name, a in tensors.items()}


def _check_shapes(tensors, config, path: pathlib.Path) -> None:
  missing = [name for name in _TENSORS if name not in tensors]
  extra = sorted(set(tensors) - set(_TENSORS))
  if missing or extra:
    raise errors.InputError(
      f"{path / WEIGHTS}: a TopK dictionary has the tensors {list(_TENSORS)};"
      f" missing: {missing}, not understood: {extra}"
    )
  d, f = config["d_in"], config["d_sae"]
  expected = {"W_enc": (d, f), "W_dec": (f, d), "b_enc": (f,), "b_dec": (d,)}
  for name, shape in expected.items():
    if tensors[name].shape != shape:
      raise errors.InputError(
        f"{path / WEIGHTS}: {name} has shape {tensors[name].shape}, but"
        f" {CONFIG} (d_in={d}, d_sae={f}) says {shape}"
      )


def _check_finite(where: str, name: str, array: np.ndarray) -> None:
  if not np.isfinite(array).all():
    raise errors.InputError(f"{where}: {name} holds NaN or infinity")


def _fold(tensors, config) -> sae.Params:
  w_enc_FD = tensors["W_enc"].T
  w_dec_FD = tensors["W_dec"]
  b_enc_F, b_dec_D = tensors["b_enc"], tensors["b_dec"]
  if not config["apply_b_dec_to_input"]:
    # W x + b = W (x − b_dec) + (b + W b_dec)
    b_enc_F = b_enc_F + w_enc_FD.astype(np.float64) @ b_dec_D
  if config["rescale_acts_by_decoder_norm"]:
    # SAELens multiplies pre-activations by ‖w_dec‖ and divides when decoding.
    norm_F1 = np.linalg.norm(w_dec_FD, axis=1, keepdims=True)
    w_enc_FD = w_enc_FD * norm_F1
    b_enc_F = b_enc_F * norm_F1[:, 0]
    w_dec_FD = w_dec_FD / np.maximum(norm_F1, np.finfo(np.float32).tiny)
  return sae.Params(
    w_enc_FD=jnp.asarray(np.ascontiguousarray(w_enc_FD), jnp.float32),
    w_dec_FD=jnp.asarray(w_dec_FD, jnp.float32),
    b_enc_F=jnp.asarray(b_enc_F, jnp.float32),
    b_dec_D=jnp.asarray(b_dec_D, jnp.float32),
  )
