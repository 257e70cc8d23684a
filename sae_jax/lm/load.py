# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens a language model: a Hugging Face directory, hub id, adapter or .gguf.

The loaded `LanguageModel` is immutable and a pytree, so that it can be handed
to compiled functions as it is.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import huggingface_hub
import jax
import jax.numpy as jnp
from huggingface_hub import errors as hub_errors

from sae_jax import artifacts, errors
from sae_jax import mesh as mesh_lib
from sae_jax.lm import adapter as adapter_lib
from sae_jax.lm import config as config_lib
from sae_jax.lm import gguf as gguf_lib
from sae_jax.lm import model as model_lib
from sae_jax.lm import source as source_lib
from sae_jax.lm import tokenizer as tokenizer_lib
from sae_jax.lm import weights as weights_lib

# Everything but the weights of other frameworks.
_HUB_FILES = [
  "*.json",
  "*.safetensors",
  "*.model",
  "*.jinja",
  "merges.txt",
  "vocab.txt",
]


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("model",),
  meta_fields=("config", "mesh", "source", "path", "weights_hash"),
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModel:
  """A decoder on a mesh; its tokenizer is opened when it is first used."""

  model: model_lib.Decoder
  config: config_lib.ModelConfig
  mesh: jax.sharding.Mesh
  source: str  # as it was given
  path: pathlib.Path  # where that is on this machine
  weights_hash: str  # hex, of the weight files alone

  @property
  def tokenizer(self) -> tokenizer_lib.Tokenizer:
    """Raises errors.InputError where there is none beside the weights."""
    return _tokenizer(tokenizer_path(self.path))

  @property
  def dtype(self) -> jnp.dtype:
    return self.model.dtype

  @property
  def layers(self) -> int:
    """How many blocks are loaded."""
    return self.model.layers

  @property
  def unembed_VD(self) -> jax.Array:
    """The head's rows, one per word (the embedding's where they are tied)."""
    if not self.model.has_head:
      raise errors.InputError(
        f"{self.source}: the unembedding is not loaded; load the model without"
        " layers="
      )
    return self.model.unembed_VD

  @property
  def embed_VD(self) -> jax.Array:
    return self.model.embed_VD[...]

  def final_norm(self, h: jax.Array) -> jax.Array:
    """The norm before the head, over the last axis."""
    return self.model.normed(h)


def tokenizer_path(path: pathlib.Path) -> pathlib.Path:
  """Where a model's tokenizer is: an adapter without one has its base's."""
  own = any((path / f).is_file() for f in ("tokenizer.json", "vocab.json"))
  if is_adapter(path) and not own:
    return tokenizer_path(base_of(path))
  return path


def open_tokenizer(
  path_or_hub_id: str | pathlib.Path,
) -> tokenizer_lib.Tokenizer:
  """The tokenizer that `load_lm(path_or_hub_id)` has, without its weights.

  Raises:
    errors.InputError: see `load_lm`.
  """
  return _tokenizer(tokenizer_path(_resolve(str(path_or_hub_id))))


@functools.lru_cache(maxsize=8)
def _tokenizer(path: pathlib.Path) -> tokenizer_lib.Tokenizer:
  return tokenizer_lib.load(path)


def load_lm(
  path_or_hub_id: str | pathlib.Path,
  *,
  mesh: jax.sharding.Mesh | None = None,
  dtype: Any = jnp.bfloat16,
  layers: int | None = None,
) -> LanguageModel:
  """Loads a causal language model.

  Args:
    path_or_hub_id: a directory with config.json and *.safetensors, a .gguf file
      of the llama family, the id of a model on the Hugging Face hub, or either
      kind of place with a LoRA adapter of PEFT, which is merged into its base
      model in float32.
    mesh: from `sae_jax.mesh`; None is this process's first device.
    dtype: of weights and activations, bfloat16 or float32.
    layers: read only the first so many blocks (and no head), which is enough
      for activations up to there.

  Raises:
    errors.InputError: nothing there, or a model that is not supported.
  """
  dtype = jnp.dtype(dtype)
  if dtype not in (jnp.bfloat16, jnp.float32):
    raise errors.InputError(f"dtype={dtype}: give bfloat16 or float32")
  path = _resolve(str(path_or_hub_id))
  raw, source, identity = _open(path)
  place = str(path if path.is_file() else path / "config.json")
  config = config_lib.from_hf(raw, place=place)
  if layers is not None and not 0 <= layers <= config.num_layers:
    raise errors.InputError(
      f"layers={layers}: {path_or_hub_id} has {config.num_layers} layers"
    )
  if layers == config.num_layers:
    layers = None
  mesh = mesh_lib.single() if mesh is None else mesh
  return LanguageModel(
    model=weights_lib.load_decoder(
      config, source, mesh, dtype, layers, place=str(path)
    ),
    config=config,
    mesh=mesh,
    source=str(path_or_hub_id),
    path=path,
    weights_hash=identity,
  )


def weights_hash(path_or_hub_id: str | pathlib.Path) -> str:
  """The `weights_hash` that `load_lm` would give, without loading weights.

  Raises:
    errors.InputError: nothing there, or not a model.
  """
  return _open(_resolve(str(path_or_hub_id)))[2]


def _open(path: pathlib.Path) -> tuple[dict[str, Any], source_lib.Source, str]:
  """(contents of config.json, tensors, hash of the weights) of a checkpoint.

  An adapter's base model may be an adapter itself.
  """
  raw = read_config(path)
  if path.is_file():
    return raw, gguf_lib.GgufTensors(path), source_lib.hash_files([path])
  if not is_adapter(path):
    files = source_lib.safetensors_files(path)
    source = source_lib.SafetensorsSource(path)
    return raw, source, source_lib.hash_files(files)
  raw, base, of_base = _open(base_of(path))
  merged = adapter_lib.MergedSource(
    base, path, transposed=raw.get("model_type") == "gpt2"
  )
  parts = {
    "base": of_base,
    "adapter": source_lib.hash_files([path / adapter_lib.WEIGHTS]),
    "scales": {name: c.scale for name, c in merged.corrections.items()},
  }
  return raw, merged, artifacts.hash_json(parts)


def is_adapter(path: pathlib.Path) -> bool:
  """Whether a directory holds a PEFT adapter."""
  return (path / adapter_lib.CONFIG).is_file()


def base_of(path: pathlib.Path) -> pathlib.Path:
  """The local base model of an adapter, downloaded if it is a hub id.

  Raises:
    errors.InputError: it cannot be found, or is the adapter itself.
  """
  name = str(adapter_lib.read_config(path)["base_model_name_or_path"])
  beside = path / name
  try:
    base = beside if beside.exists() else _resolve(name)
  except errors.InputError as error:
    raise errors.InputError(
      f"{path / adapter_lib.CONFIG}: the base model cannot be opened: {error}"
    ) from error
  if base.resolve() == path.resolve():
    raise errors.InputError(
      f"{path / adapter_lib.CONFIG}: base_model_name_or_path={name!r} is the"
      " adapter itself; write its base model there"
    )
  return base


def _resolve(name: str) -> pathlib.Path:
  """The local directory or .gguf file, downloaded if it is a hub id."""
  path = pathlib.Path(name).expanduser()
  if path.is_file() and path.suffix != ".gguf":
    raise errors.InputError(
      f"{name}: a model is a directory with config.json, or a .gguf file"
    )
  if path.exists():
    return path
  if path.suffix == ".gguf" or name.count("/") > 1 or name[:1] in "./~":
    raise errors.InputError(f"{name}: no such model directory or .gguf file")
  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES)
    )
  except (
    hub_errors.HfHubHTTPError,
    hub_errors.HFValidationError,
    hub_errors.LocalEntryNotFoundError,
    OSError,
  ) as error:
    reason = str(error).strip().splitlines()[0]
    raise errors.InputError(
      f"{name}: neither a local path nor a model that could be downloaded from"
      f" the Hugging Face hub ({type(error).__name__}: {reason}); give a local"
      " directory or .gguf file, or check the id, the network and (for gated"
      " models) `hf auth login`"
    ) from error


def read_config(directory: pathlib.Path) -> dict[str, Any]:
  """`config.json`, with the generation config's stop tokens where given.

  A .gguf file gives what its config.json would be, an adapter that of its base
  model.

  Raises:
    errors.InputError: there is none, or it is damaged.
  """
  if directory.is_file():
    return gguf_lib.read_gguf_config(directory)
  if is_adapter(directory):
    return read_config(base_of(directory))
  path = directory / "config.json"
  if not path.is_file():
    found = sorted(p.name for p in directory.glob("*.gguf"))
    hint = f"; did you mean {directory / found[0]}?" if found else ""
    raise errors.InputError(f"{directory}: there is no config.json in it{hint}")
  raw = _read_json(path)
  generation = directory / "generation_config.json"
  if generation.is_file():
    stop = _read_json(generation).get("eos_token_id")
    if stop is not None:
      raw["eos_token_id"] = stop
  return raw


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    value = json.loads(path.read_text())
  except ValueError as error:
    raise errors.InputError(f"{path}: not valid JSON ({error})") from error
  if not isinstance(value, dict):
    raise errors.InputError(f"{path}: not a JSON object")
  return value
