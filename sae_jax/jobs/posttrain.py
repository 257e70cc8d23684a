# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax posttrain`: a model and examples in; `model/` and metrics out."""

import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp

from sae_jax import artifacts, errors, lm
from sae_jax import config as config_lib
from sae_jax import mesh as mesh_lib
from sae_jax.lm import load
from sae_jax.posttrain import config as posttrain_config
from sae_jax.posttrain import margin, records, series, sft

Config = posttrain_config.PosttrainConfig


def run(config: Config, out: str) -> dict[str, Any]:
  """Fine-tunes, resumes, or returns the result of the finished run in `out`.

  `out/model/` is a Hugging Face directory, or with `lora` an adapter in PEFT's
  layout; `load_lm` opens either. With `series_every`, `out/series/000010/` and
  so on are the same of the model on the way.
  """
  inputs = {
    "model": load.weights_hash(config.model),
    "data": _hash(config.data.path),
  }
  if config.eval is not None:
    inputs["eval"] = _hash(config.eval.path)
  lead = jax.process_index() == 0
  with artifacts.open_output(
    out,
    job="posttrain",
    config=config_lib.to_dict(config),
    inputs=inputs,
    may_change=posttrain_config.MAY_CHANGE,
    lead=lead,
  ) as output:
    if output.finished is not None:
      print(f"{output.path} is already fine-tuned", file=sys.stderr)
      return output.finished["result"]
    base = lm.load_lm(
      config.model,
      mesh=mesh_lib.make(config.mesh),
      dtype=jnp.dtype(config.dtype),
    )
    examples = records.examples(
      config.data, base.tokenizer, base.config.learned_positions
    )
    tuned = sft.train(
      base,
      examples,
      config.sft,
      directory=output.path,
      looks=_looks(config, base, output.path),
    )
    model = series.save(config, base, tuned, output.path / "model")
    result = {
      "run": str(output.path),
      "model": str(model),
      "steps": config.sft.num_steps(len(examples)),
      "examples": len(examples),
      **tuned.metrics,
    }
    output.finish(result, device=jax.devices()[0].device_kind)
  return result


def _looks(
  config: Config, base: lm.LanguageModel, path: pathlib.Path
) -> list[sft.Look]:
  looks = []
  if config.eval is not None:
    read = margin.make_look(config, base.tokenizer)
    looks.append(
      sft.Look(config.eval.every, lambda step, tuned: read(tuned.model))
    )
  if config.series_every:
    looks.append(series.look(config, base, path / "series"))
  return looks


def _hash(path: str) -> str:
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise errors.InputError(f"{path}: no such file; give a JSONL file")
  return artifacts.hash_file(file)
