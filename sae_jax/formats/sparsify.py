# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""EleutherAI's sparsify (eai-sparsify): TopK dictionaries and transcoders.

A directory, named after a module, with `sae.safetensors` (`encoder.weight`
[F, D], `encoder.bias` [F], `W_dec` [F, D], `b_dec` [D]; with a skip connection
`W_skip` [D, D], of which the output gets `W_skip x`) and `cfg.json`.
"""

import functools
import os
import pathlib
import re
from typing import Any

from sae_jax import errors, sae
from sae_jax.formats import (
  capabilities,
  directory,
  memory_maps,
  provenance,
  streamed,
)

NAME = "sparsify"
CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
# What a module puts out, in our words. Of the module itself any prefix is
# taken: sparsify names it from the model's base on.
_SITES = {
  "": "resid_post",
  "mlp": "mlp_out",
  "self_attn": "attn_out",
  "attention": "attn_out",
  "attn": "attn_out",
}
# What sparsify notes of a run, one directory up, in SAELens's words.
_RUN = {
  "model": "model_name",
  "dataset": "dataset_path",
  "ctx_len": "context_size",
}


def matches(path: pathlib.Path) -> bool:
  """Whether the directory holds a dictionary of sparsify."""
  return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def load(path: str | os.PathLike[str]) -> sae.Sae:
  """Reads a dictionary as memory maps of the file.

  Raises:
    errors.InputError: a file is missing or damaged, the configuration asks
      for something that is not implemented (it is named), or shapes disagree.
  """
  path = pathlib.Path(path)
  config = directory.read_json(path / CONFIG)
  for name, choices in (
    ("activation", ("topk",)),  # groupmax: the largest of each group
    ("signed", (False,)),  # of early releases: the largest by magnitude
    ("transcode", (False, True)),
    ("skip_connection", (False, True)),
  ):
    value = config.setdefault(name, choices[0])
    if value not in choices:
      raise errors.InputError(
        f"{path / CONFIG}: {name}={value!r} is not supported; supported:"
        f" {', '.join(map(repr, choices))}"
      )
  width = _number(config, "d_in", path)
  if config.get("num_latents"):
    latents = _number(config, "num_latents", path)
  else:
    latents = width * _number(config, "expansion_factor", path)
  k = _number(config, "k", path)
  tensors = memory_maps.tensors(path / WEIGHTS)
  shapes: dict[str, tuple[int, ...]] = {
    "encoder.weight": (latents, width),
    "encoder.bias": (latents,),
    "W_dec": (latents, width),
    "b_dec": (width,),
  }
  if config["skip_connection"]:
    shapes["W_skip"] = (width, width)
  directory.check_tensors(tensors, shapes, str(path / WEIGHTS))
  metadata = provenance.carried(config, path / CONFIG)
  if metadata is None:
    metadata = _metadata(path, config)
  arrays: dict[str, Any] = tensors
  return sae.make_sae(
    sae.Params(
      w_enc_FD=arrays["encoder.weight"],
      w_dec_FD=arrays["W_dec"],
      b_enc_F=arrays["encoder.bias"],
      b_dec_D=arrays["b_dec"],
      w_skip_DE=arrays["W_skip"].T if config["skip_connection"] else None,
    ),
    k,
    metadata,
    centred=not config["transcode"],
  )


def _number(config: dict[str, Any], name: str, path: pathlib.Path) -> int:
  value = config.get(name)
  if type(value) is not int or value < 1:
    raise errors.InputError(
      f"{path / CONFIG}: {name}={value!r} is not a number >= 1"
    )
  return value


def _metadata(path: pathlib.Path, config: dict[str, Any]) -> dict[str, Any]:
  """What the names of things say of where a dictionary is from."""
  module = path.absolute().name
  metadata: dict[str, Any] = {"sparsify_hookpoint": module}
  found = re.fullmatch(r"(?:\w+\.)*?(?:layers|h)\.(\d+)\.?([\w.]*)", module)
  if found and found[2] in _SITES:
    hook = f"blocks.{found[1]}.hook_{_SITES[found[2]]}"
    # A transcoder reads what goes into its module, for which there is no name.
    metadata["hook_name_out" if config["transcode"] else "hook_name"] = hook
  run = path.absolute().parent / "config.json"
  if run.is_file():
    noted = directory.read_json(run)
    metadata |= {
      ours: noted[theirs] for theirs, ours in _RUN.items() if theirs in noted
    }
  return metadata


def save(dictionary: sae.Sae, path: str | os.PathLike[str]) -> None:
  """Writes the directory `path`, float32, atomically file by file.

  Metadata is kept in `cfg.json` under a name that sparsify does not read. See
  `saelens.save` for several processes.

  Raises:
    errors.InputError: sparsify has no such dictionaries, or a weight is NaN or
      infinite.
  """
  capabilities.refuse(dictionary, NAME)
  params = dictionary.params
  arrays = {
    "encoder.weight": params.w_enc_FD,
    "encoder.bias": params.b_enc_F,
    "W_dec": params.w_dec_FD,
    "b_dec": params.b_dec_D,
  }
  if params.w_skip_DE is not None:
    arrays["W_skip"] = params.w_skip_DE
  directory.write(
    path,
    weights=WEIGHTS,
    write_weights=functools.partial(
      streamed.write,
      arrays=arrays,
      transposed=("W_skip",),
      check=directory.check_finite,
    ),
    config=CONFIG,
    values={
      "activation": "topk",
      "expansion_factor": max(1, dictionary.latents // dictionary.d_model),
      "normalize_decoder": True,
      "num_latents": dictionary.latents,
      "k": dictionary.k,
      "multi_topk": False,
      "skip_connection": params.w_skip_DE is not None,
      "transcode": not dictionary.centred,
      "d_in": dictionary.d_model,
      provenance.KEY: provenance.kept(dictionary),
    },
  )
