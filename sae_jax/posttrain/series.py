# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuned models on disk: the last one, and those on the way to it.

A series is a directory of models named by the steps done, `000010`; each
appears whole, and one that is there is not written again.
"""

import os
import pathlib
import shutil
from collections.abc import Callable

import jax

from sae_jax import artifacts, lm
from sae_jax.lm import adapter as adapter_lib
from sae_jax.posttrain import config as config_lib
from sae_jax.posttrain import sft


def save(
  config: config_lib.PosttrainConfig,
  base: lm.LanguageModel,
  tuned: sft.Tuned,
  directory: pathlib.Path,
) -> pathlib.Path:
  """Writes a Hugging Face directory, or with `lora` an adapter as PEFT does.

  Args:
    base: the model that was fine-tuned.
  """
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


def keeper(
  directory: pathlib.Path, write: Callable[[sft.Tuned, pathlib.Path], object]
) -> Callable[[int, sft.Tuned], dict[str, float]]:
  """What a `sft.Look` does to keep the model of its step."""

  def keep(step: int, tuned: sft.Tuned) -> dict[str, float]:
    path = directory / f"{step:06d}"
    if path.exists():  # of the run that this one goes on from: the same bits
      return {}
    lead = jax.process_index() == 0
    aside = directory / f".{path.name}.tmp"
    if lead and aside.exists():
      shutil.rmtree(aside)
    write(tuned, aside)
    if lead:
      os.replace(aside, path)
      artifacts.sync_directory(directory)
    return {}

  return keep


def look(
  config: config_lib.PosttrainConfig,
  base: lm.LanguageModel,
  directory: pathlib.Path,
) -> sft.Look:
  """Keeps a model every `config.series_every` steps, as `save` writes it."""
  keep = keeper(
    directory, lambda tuned, place: save(config, base, tuned, place)
  )
  return sft.Look(config.series_every, keep)
