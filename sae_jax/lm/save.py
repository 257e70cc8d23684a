# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes a language model as a Hugging Face directory.

`config.json` comes last, so that a directory without it is unfinished;
`load_lm` of the directory gives the same bits, and transformers opens it.
"""

import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from jax.experimental import multihost_utils

from sae_jax import artifacts, errors
from sae_jax.lm import layout as layout_lib
from sae_jax.lm import load as load_lib
from sae_jax.lm import tokenizer as tokenizer_lib
from sae_jax.lm import weights as weights_lib

# Weights are written in files of at most so many bytes (one tensor at least),
# which bounds the host memory that saving takes; transformers does 5 GB.
_SHARD_BYTES = 4 * 2**30

_CLASSES = {
  "llama": "LlamaForCausalLM",
  "mistral": "MistralForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
  "gemma2": "Gemma2ForCausalLM",
  "gemma3_text": "Gemma3ForCausalLM",
  "gpt2": "GPT2LMHeadModel",
  "gpt_neox": "GPTNeoXForCausalLM",
}

# What a model directory holds of its tokenizer, and the stop tokens.
_COPIED = (
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "tokenizer.model",
  "vocab.json",
  "merges.txt",
  "vocab.txt",
  "chat_template.jinja",
  "chat_template.json",
  "generation_config.json",
)


def save_hf(
  lm: load_lib.LanguageModel,
  directory: str | pathlib.Path,
  *,
  hf_config: Mapping[str, Any] | None = None,
  tokenizer: tokenizer_lib.Tokenizer | None = None,
) -> pathlib.Path:
  """Writes config.json, *.safetensors and the tokenizer's files.

  Weights are written in the model's dtype. Every process of a run calls it;
  the first one writes.

  Args:
    directory: made if it is not there; files of the same name are replaced.
    hf_config: what config.json says of the architecture; None: what the place
      that `lm` was loaded from says.
    tokenizer: None: that of the place that `lm` was loaded from, if any.

  Returns:
    the directory.

  Raises:
    errors.InputError: only some layers are loaded, or the directory cannot be
      made.
  """
  if not lm.model.has_head:
    raise errors.InputError(
      f"{lm.source}: only {lm.layers} of {lm.config.num_layers} layers are"
      " loaded, which is no model to save; load it without layers="
    )
  lead = jax.process_index() == 0
  path = pathlib.Path(directory).expanduser().absolute()
  if hf_config is None:
    hf_config = load_lib.read_config(lm.path)
  if lead:
    _make(path)
  total, files = _write_weights(lm, path, lead)
  if not lead:
    return path
  index = path / "model.safetensors.index.json"
  index.unlink(missing_ok=True)
  if len(set(files.values())) > 1:
    artifacts.write_json_atomic(
      index, {"metadata": {"total_size": total}, "weight_map": files}
    )
  _write_tokenizer(lm, path, tokenizer)
  artifacts.write_json_atomic(
    path / "config.json", _config(lm, hf_config, str(lm.dtype))
  )
  return path


def _make(path: pathlib.Path) -> None:
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.InputError(
      f"{path}: cannot make this directory ({error.strerror}); choose another"
    ) from error
  (path / "config.json").unlink(missing_ok=True)
  for old in path.glob("model*.safetensors"):
    old.unlink()


def _config(
  lm: load_lib.LanguageModel, raw: Mapping[str, Any], dtype: str
) -> dict[str, Any]:
  """The config of a text model alone, in this dtype."""
  if isinstance(raw.get("text_config"), Mapping):
    raw = {"eos_token_id": raw.get("eos_token_id"), **raw["text_config"]}
  dropped = ("_name_or_path", "torch_dtype", "quantization_config")
  return {
    **{name: value for name, value in raw.items() if name not in dropped},
    "model_type": lm.config.family,
    "architectures": [_CLASSES[lm.config.family]],
    # Null and absent mean other things to some families.
    "tie_word_embeddings": lm.config.tied_embedding,
    "dtype": dtype,
  }


def _write_weights(
  lm: load_lib.LanguageModel, path: pathlib.Path, lead: bool
) -> tuple[int, dict[str, str]]:
  """Writes all tensors; returns their bytes and name -> file."""
  plan = list(_tensors(lm))
  shards: list[list[tuple[str, Callable[[], np.ndarray]]]] = [[]]
  size = total = 0
  for name, bytes_, make in plan:
    if shards[-1] and size + bytes_ > _SHARD_BYTES:
      shards.append([])
      size = 0
    shards[-1].append((name, make))
    size += bytes_
    total += bytes_
  files: dict[str, str] = {}
  for i, shard in enumerate(shards):
    file = "model.safetensors"
    if len(shards) > 1:
      file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
    tensors = {name: make() for name, make in shard}
    if lead:
      save_tensors(tensors, path / file)
    files |= dict.fromkeys(tensors, file)
  return total, files


def save_tensors(tensors: dict[str, np.ndarray], file: pathlib.Path) -> None:
  """Writes a .safetensors file aside and renames it."""
  aside = file.with_name(f".{file.name}.tmp")
  # transformers reads the framework that the file was written with.
  safetensors.numpy.save_file(tensors, aside, metadata={"format": "pt"})
  aside.replace(file)


def _tensors(
  lm: load_lib.LanguageModel,
) -> Iterator[tuple[str, int, Callable[[], np.ndarray]]]:
  """(Hugging Face name, bytes, how to make it), in the model's order."""
  arrays = weights_lib.named(lm.model)
  stored: dict[str, tuple[Any, list[jax.Array]]] = {}
  for ours, (theirs, reader) in layout_lib.layout(lm.config).items():
    if ours in arrays:
      stored.setdefault(theirs, (reader, []))[1].append(arrays[ours])
  for theirs, (reader, parts) in stored.items():
    bytes_ = sum(part.nbytes for part in parts)
    if "{}" not in theirs:
      yield theirs, bytes_, _maker(reader, parts, None)
      continue
    for layer in range(lm.layers):
      name = theirs.format(layer)
      yield name, bytes_ // lm.layers, _maker(reader, parts, layer)


def _maker(reader, parts: list[jax.Array], layer: int | None):
  def make() -> np.ndarray:
    chosen = [part if layer is None else part[layer] for part in parts]
    if jax.process_count() > 1:
      chosen = multihost_utils.process_allgather(chosen, tiled=True)
    host = [np.asarray(part) for part in chosen]
    return np.ascontiguousarray(layout_lib.to_stored(reader, host))

  return make


def _write_tokenizer(
  lm: load_lib.LanguageModel,
  path: pathlib.Path,
  tokenizer: tokenizer_lib.Tokenizer | None,
) -> None:
  place = load_lib.tokenizer_path(lm.path)
  if tokenizer is None and place.is_file():
    tokenizer = lm.tokenizer  # of a .gguf
  if tokenizer is not None:
    tokenizer.fast.save_pretrained(path)
    return
  for name in _COPIED:
    source = place / name
    if source.is_file() and source != path / name:
      shutil.copyfile(source, path / name)
