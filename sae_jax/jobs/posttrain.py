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
from sae_jax.lm import adapter as adapter_lib
from sae_jax.lm import load
from sae_jax.posttrain import config as posttrain_config
from sae_jax.posttrain import margin, records, sft

Config = posttrain_config.PosttrainConfig


def run(config: Config, out: str) -> dict[str, Any]:
  """Fine-tunes, resumes, or returns the result of the finished run in `out`.

  `out/model/` is a Hugging Face directory, or with `lora` an adapter in PEFT's
  layout; `load_lm` opens either.
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
    look, every = None, 1
    if config.eval is not None:
      look, every = margin.make_look(config, base.tokenizer), config.eval.every
    tuned = sft.train(
      base,
      examples,
      config.sft,
      directory=output.path,
      look=look,
      look_every=every,
    )
    model = _save(config, base, tuned, output.path / "model")
    result = {
      "run": str(output.path),
      "model": str(model),
      "steps": config.sft.num_steps(len(examples)),
      "examples": len(examples),
      **tuned.metrics,
    }
    output.finish(result, device=jax.devices()[0].device_kind)
  return result


def _save(
  config: Config,
  base: lm.LanguageModel,
  tuned: sft.Tuned,
  directory: pathlib.Path,
) -> pathlib.Path:
  if tuned.adapter is None or config.lora is None:
    return lm.save_hf(tuned.model, directory)
  local = pathlib.Path(config.model).expanduser().exists()
  adapter_lib.save(
    tuned.adapter,
    base.config,
    directory,
    base=str(base.path.absolute()) if local else config.model,
    alpha=config.lora.alpha,
    rslora=config.lora.rslora,
  )
  return directory


def _hash(path: str) -> str:
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise errors.InputError(f"{path}: no such file; give a JSONL file")
  return artifacts.hash_file(file)
