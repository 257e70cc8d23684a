# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Fills a decoder from a checkpoint and places it on the mesh.

Heads, MLP width and vocabulary are split over `latent` where they divide by
it; the rest is replicated. Each device reads only its own slice.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from sae_jax import errors
from sae_jax.lm import config as config_lib
from sae_jax.lm import layout as layout_lib
from sae_jax.lm import model as model_lib
from sae_jax.lm import source as source_lib

# Stored beside the weights by old transformers versions; constants.
_CONSTANTS = re.compile(
  r"(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias)$"
)


def abstract_decoder(
  config: config_lib.ModelConfig,
  mesh: jax.sharding.Mesh,
  dtype,
  layers: int | None = None,
) -> model_lib.Decoder:
  """The decoder with shapes, dtypes and shardings in place of arrays.

  With `layers`, only the first so many blocks, and no final norm or head.
  """
  decoder = nnx.eval_shape(
    functools.partial(
      model_lib.Decoder,
      config,
      dtype=dtype,
      layers=config.num_layers if layers is None else layers,
      with_head=layers is None,
    )
  )
  specs = _specs(config, mesh.shape["latent"])

  def place(path, x):
    name = _path_name(path)
    spec = specs.get(name.removeprefix("blocks."), ())
    spec = (None, *spec) if name.startswith("blocks.") else spec
    return jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=jax.NamedSharding(mesh, jax.P(*spec))
    )

  return jax.tree_util.tree_map_with_path(place, decoder)


def named(decoder: model_lib.Decoder) -> dict[str, jax.Array]:
  """Every array of a decoder by its path, such as `blocks.mlp.w_up_FD`."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(decoder)
  return {_path_name(path): leaf for path, leaf in leaves}


def replaced(
  decoder: model_lib.Decoder, arrays: Mapping[str, Any]
) -> model_lib.Decoder:
  """The decoder with the arrays of these names in place of its own."""
  return jax.tree_util.tree_map_with_path(
    lambda path, old: arrays.get(_path_name(path), old), decoder
  )


def _path_name(path) -> str:
  """`blocks.mlp.w_up_FD` of a leaf's path, whose last key is `.value`."""
  return jax.tree_util.keystr(path[:-1], simple=True, separator=".")


def _specs(
  config: config_lib.ModelConfig, shards: int
) -> dict[str, tuple[str | None, ...]]:
  """The axes of every split weight, without the layer axis."""

  def split(size: int) -> str | None:
    return "latent" if size % shards == 0 else None

  heads, kv_heads = split(config.num_heads), split(config.num_kv_heads)
  width, words = split(config.mlp_width), split(config.vocab_size)
  return {
    "embed_VD": (words, None),
    "head_VD": (words, None),
    "attention.w_q_NHD": (heads, None, None),
    "attention.w_k_KHD": (kv_heads, None, None),
    "attention.w_v_KHD": (kv_heads, None, None),
    "attention.b_q_NH": (heads, None),
    "attention.b_k_KH": (kv_heads, None),
    "attention.b_v_KH": (kv_heads, None),
    "attention.w_o_DNH": (None, heads, None),
    "mlp.w_gate_FD": (width, None),
    "mlp.w_up_FD": (width, None),
    "mlp.b_gate_F": (width,),
    "mlp.b_up_F": (width,),
    "mlp.w_down_DF": (None, width),
  }


def load_decoder(
  config: config_lib.ModelConfig,
  source: source_lib.Source,
  mesh: jax.sharding.Mesh,
  dtype,
  layers: int | None = None,
  *,
  place: str,
) -> model_lib.Decoder:
  """Reads a decoder's weights.

  Args:
    place: the checkpoint's path, for messages.

  Raises:
    errors.InputError: a tensor is missing, has another shape than the config
      says, or belongs to a block but not to what the config describes.
  """
  find = functools.partial(find_name, names=source.names(), place=place)
  table = layout_lib.layout(config)
  used: set[str] = set()

  def fill(path, weight):
    ours = _path_name(path)
    theirs, reader = table[ours]
    stacked = ours.startswith("blocks.")
    shape = weight.shape[1:] if stacked else weight.shape
    count = weight.shape[0] if stacked else 1
    names = [find(theirs.format(layer)) for layer in range(count)]
    used.update(names[:1])
    for name in names:
      _check_size(source, name, reader, shape, place)

    def read(index):
      layers = range(*index[0].indices(count)) if stacked else range(1)
      one = index[1:] if stacked else index
      sizes = [
        len(range(*s.indices(n))) for s, n in zip(one, shape, strict=True)
      ]
      value = np.empty((len(layers), *sizes), dtype)
      for i, layer in enumerate(layers):
        value[i] = reader(source, names[layer], shape, one)
      return value if stacked else value[0]

    return jax.make_array_from_callback(weight.shape, weight.sharding, read)

  decoder = abstract_decoder(config, mesh, dtype, layers)
  decoder = jax.tree_util.tree_map_with_path(fill, decoder)
  _check_all_used(source.names(), used, place)
  return decoder


def find_name(name: str, *, names: set[str], place: str) -> str:
  """The stored spelling of a Hugging Face name.

  Checkpoints of multimodal models and of bare trunks add or drop a prefix.

  Raises:
    errors.InputError: it is not among `names`.
  """
  spellings = [name, f"language_model.{name}"]
  if name.startswith("model."):
    spellings.append(f"model.language_model.{name.removeprefix('model.')}")
  for prefix in ("model.", "transformer.", "gpt_neox."):
    if name.startswith(prefix):
      spellings.append(name.removeprefix(prefix))
  for spelling in spellings:
    if spelling in names:
      return spelling
  raise errors.InputError(
    f"{place}: the weights have no tensor {name!r}; the files are incomplete or"
    " belong to another config.json"
  )


def _check_size(source, name: str, reader: Callable, shape, place: str):
  stored = source.shape(name)
  fused = 3 if layout_lib.is_fused(reader) else 1
  if math.prod(stored) != fused * math.prod(shape):
    raise errors.InputError(
      f"{place}: {name} has shape {stored}, but config.json asks for"
      f" {fused * math.prod(shape)} elements; they are not of one model"
    )


def _check_all_used(names: set[str], used: set[str], place: str):
  """Refuses block tensors that the config does not account for."""
  layer_0 = re.compile(r"\.0\.|^h\.0\.")
  prefixes = {n[: m.end()] for n in used if (m := layer_0.search(n))}
  for name in sorted(names - used):
    if name.startswith(tuple(prefixes)) and not _CONSTANTS.search(name):
      raise errors.InputError(
        f"{place}: the weights have {name!r}, which its config.json does not"
        " account for; such a model is not supported"
      )
