# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How one model is read during a re-alignment: behaviour, latents, directions.

A reading is one npz of numbers per prompt, so that the next reading can be
compared with it prompt by prompt.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sae_jax import artifacts, errors, formats, lm, sae
from sae_jax.interpret import on_mesh
from sae_jax.interpret import reading as reading_lib
from sae_jax.judge import config as judge_config
from sae_jax.judge import margin, scores
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import hooks as hooks_lib
from sae_jax.posttrain import realign_config
from sae_jax.posttrain import suspects as suspects_lib


@dataclasses.dataclass(frozen=True)
class Watch:
  """What every model of a re-alignment is asked."""

  suspects: suspects_lib.Suspects
  dictionary: sae.Sae  # on the mesh
  hook: str
  spans: Sequence[reading_lib.Span]
  behaviour: prompts_lib.Prompts
  triggers: prompts_lib.Prompts | None
  batch_size: int
  statistics: scores.ScoreConfig
  seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Reading:
  """One model; P prompts with both responses, S sequences of the latents.

  Attributes:
    behaviour_P: nats per token, float64; see `judge.margin`.
    contrast_P: nats per token, float64.
    latents_SL: mean activations.
    directions_SV: mean projections on unit directions.
  """

  behaviour_P: np.ndarray
  contrast_P: np.ndarray
  latents_SL: np.ndarray
  directions_SV: np.ndarray

  def save(self, path: pathlib.Path) -> None:
    artifacts.write_npz_atomic(path, dataclasses.asdict(self))

  @classmethod
  def load(cls, path: pathlib.Path) -> "Reading":
    with np.load(path, allow_pickle=False) as file:
      return cls(**{name: file[name] for name in file.files})


def open_watch(
  config: realign_config.RealignConfig, model: lm.LanguageModel
) -> Watch:
  """Reads suspects, dictionary and prompts.

  Args:
    model: whose tokenizer and mesh are used.

  Raises:
    errors.InputError: they do not fit one another or the model.
  """
  chosen = suspects_lib.choose(config.watch)
  dictionary = formats.load_sae(chosen.sae)
  if dictionary.d_model != model.config.d_model:
    raise errors.InputError(
      f"the SAE {chosen.sae} is {dictionary.d_model} wide and {model.source} is"
      f" {model.config.d_model}; use an SAE of this model's activations"
    )
  hook = chosen.hook or dictionary.metadata.get("hook_name")
  if not hook:
    raise errors.InputError(
      f"{chosen.sae} does not say which hook it is for; set watch.hook"
    )
  behaviour = _pairs("behaviour", config.behaviour, model)
  read = behaviour
  if config.watch.prompts is not None:
    read = prompts_lib.load(config.watch.prompts, model.tokenizer)
  spans = prompts_lib.spans(read, config.watch.scope, config.watch.skip)
  reading_lib.check(spans)
  triggers = None
  if config.triggers is not None:
    triggers = _pairs("triggers", config.triggers, model)
  return Watch(
    suspects=chosen,
    dictionary=on_mesh.place(dictionary, model.mesh),
    hook=hooks_lib.parse(str(hook), model.config.num_layers).canonical,
    spans=spans,
    behaviour=behaviour,
    triggers=triggers,
    batch_size=config.batch_size,
    statistics=config.statistics,
    seeds=(config.posttrain.seed,),
  )


def _pairs(
  name: str, config: judge_config.PromptsConfig, model: lm.LanguageModel
) -> prompts_lib.Prompts:
  prompts = prompts_lib.load(config, model.tokenizer)
  if len(margin.paired(prompts)) < 2:
    raise errors.InputError(
      f"{name}: {config.path} has one prompt with both responses; whether a"
      " difference is one takes two or more"
    )
  return prompts


def read(watch: Watch, model: lm.LanguageModel) -> Reading:
  """Behaviour and latents of a model."""
  directions = list(watch.suspects.directions.values())
  found = reading_lib.read(
    model,
    watch.hook,
    watch.spans,
    dictionary=watch.dictionary,
    latents=watch.suspects.latents,
    directions_VD=np.stack(directions) if directions else None,
    batch_size=watch.batch_size,
  )
  values = read_pairs(watch, watch.behaviour, model)
  return Reading(
    values.behaviour_P,
    values.contrast_P,
    found.latents_PL,
    found.projections_PV,
  )


def read_pairs(
  watch: Watch, prompts: prompts_lib.Prompts, model: lm.LanguageModel
) -> margin.PairValues:
  return margin.pair_margins(model, prompts, batch_size=watch.batch_size)


def metrics(watch: Watch, found: Reading) -> dict[str, float]:
  """What is logged with the step."""
  return {
    "eval/margin": float(np.mean(found.behaviour_P - found.contrast_P)),
    "eval/p_behaviour": float(np.mean(np.exp(found.behaviour_P))),
    "eval/p_contrast": float(np.mean(np.exp(found.contrast_P))),
    "eval/bundle": float(np.mean(bundle(watch, found))),
  }


def bundle(watch: Watch, found: Reading) -> np.ndarray:
  """Σ weight · activation of every sequence, [S]."""
  return found.latents_SL @ watch.suspects.weights_L


def behaviour_json(watch: Watch, values: margin.PairValues) -> dict[str, Any]:
  return margin.summarise(
    values, seeds=watch.seeds, **dataclasses.asdict(watch.statistics)
  ).json()


def to_json(watch: Watch, found: Reading) -> dict[str, Any]:
  """A reading in summary.json."""
  values = margin.PairValues.of(
    watch.behaviour, found.behaviour_P, found.contrast_P
  )
  mean_L = found.latents_SL.mean(axis=0)
  return {
    "behaviour": behaviour_json(watch, values),
    "latents": {
      str(latent): float(mean)
      for latent, mean in zip(watch.suspects.latents, mean_L, strict=True)
    },
    "bundle": float(bundle(watch, found).mean()),
    "directions": {
      name: float(mean)
      for name, mean in zip(
        watch.suspects.directions,
        found.directions_SV.mean(axis=0),
        strict=True,
      )
    },
  }


def same_tokenizer(one: lm.LanguageModel, two: lm.LanguageModel) -> None:
  """Raises errors.InputError where two models would read other tokens."""
  if one.tokenizer.hash != two.tokenizer.hash:
    raise errors.InputError(
      f"{one.source} and {two.source} have different tokenizers; give a base"
      " and a model that was made from it"
    )
