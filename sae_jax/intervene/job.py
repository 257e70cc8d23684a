# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A screen from its inputs to its files.

Writes OUT/screen.parquet and OUT/summary.json, with generation samples.jsonl;
what is measured lies in OUT/work until the job is done.
"""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sae_jax import artifacts, errors, formats, lm
from sae_jax import mesh as mesh_lib
from sae_jax.interpret import diff_results
from sae_jax.intervene import bands as bands_lib
from sae_jax.intervene import candidates as candidates_lib
from sae_jax.intervene import config as config_lib
from sae_jax.intervene import (
  firing,
  generation,
  models,
  norms,
  results,
  samples,
  summary,
  table,
)
from sae_jax.intervene import screen as screen_lib
from sae_jax.judge import margin
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import hooks as hooks_lib
from sae_jax.lm import load as load_lib


def run(
  config: config_lib.SteerConfig, output: artifacts.Output
) -> dict[str, Any]:
  """Screens and returns what the job prints.

  Raises:
    errors.InputError: models, dictionary, diff and prompts do not fit.
    errors.Interrupted: a signal came; the same command goes on.
  """
  show = jax.process_index() == 0
  screen, found, warnings = open_screen(config, output.path / "work")
  stage = None
  if config.generation is not None:
    told = config.generation.questions
    prompts = models.prompts(config, told) if told else screen.prompts
    stage = generation.open_stage(
      screen, prompts, output.path / "replies", show
    )
  screen_lib.measure(screen, show)
  measured = results.Results(screen)
  with table.Writer(output.path / "screen.parquet") as writer:
    verdicts = results.write_table(
      measured, writer, config.strengths, screen.norms
    )
    generated = None
    if stage is not None:
      answers = stage.run(generation.targets(verdicts, stage.config))
      generated = samples.write(
        output.path / "samples.jsonl", stage, answers, screen, writer
      )
  said = summary.summarise(
    measured, screen, found, verdicts, generated, warnings
  )
  output.write_json("summary.json", said)
  shutil.rmtree(screen.work)
  return {
    "screen": str(output.path),
    **verdicts.counts,
    "bundles": {
      row["name"]: {
        "verdict": row["verdict"],
        "up": row["up"]["share_of_shift"],
        "down": row["down"]["share_of_shift"],
      }
      for row in said["interventions"]
      if row["kind"] == "bundle"
    },
  }


def inputs(config: config_lib.SteerConfig) -> dict[str, str]:
  """Hashes of what a screen reads."""
  found = {
    name: load_lib.weights_hash(source)
    for name, source in models.sources(config).items()
  }
  found["sae"] = formats.hash_sae(config.sae)
  found["prompts"] = artifacts.hash_input("prompts.path", config.prompts.path)
  if config.diff:
    found["diff"] = diff_results.identity(config.diff)
  asked = config.generation
  if asked is not None and asked.questions is not None:
    found["questions"] = artifacts.hash_input(
      "generation.questions", asked.questions.path
    )
  if asked is not None and asked.judge.rules:
    found["rules"] = artifacts.hash_input(
      "generation.judge.rules", asked.judge.rules
    )
  return found


def open_screen(
  config: config_lib.SteerConfig, work: pathlib.Path
) -> tuple[screen_lib.Screen, candidates_lib.Found, list[str]]:
  """Makes ready what is measured; the base runs as far as that needs."""
  mesh = mesh_lib.make(config.mesh)
  decoder = formats.open_decoder(config.sae)
  hooks = _hooks(config, decoder.metadata)
  _check_diff(config, hooks)
  work.mkdir(exist_ok=True)
  load = models.Models(config, mesh, decoder.d_model, hooks).load
  prompts = models.prompts(config, config.prompts)
  prompts = screen_lib.subset(prompts, margin.paired(prompts))
  fires_F = firing.of_diff(config)
  if fires_F is None:
    fires_F = firing.read(config, work, hooks[0], prompts, load)
  found = candidates_lib.find(config, decoder, np.flatnonzero(fires_F))
  pool = firing.pool(config, found.arm, fires_F)
  random, warnings = bands_lib.draw(
    found.candidates, pool, config.random, config.seed
  )
  alphas_HS = np.outer(
    _units(config, work, hooks, prompts, load, found), config.strengths
  )
  screen = screen_lib.Screen(
    config=config,
    hooks=hooks,
    rows=decoder,
    vectors=found.vectors,
    groups=_groups(config, [*found.candidates, *random], prompts),
    prompts=prompts,
    alphas_HS=alphas_HS,
    load=load,
    work=work,
  )
  return screen, found, [*found.warnings, *warnings]


def _groups(
  config: config_lib.SteerConfig,
  candidates: list[candidates_lib.Candidate],
  prompts: prompts_lib.Prompts,
) -> tuple[screen_lib.Group, ...]:
  """Single latents on some prompts; bundles and directions on all of them."""
  topics = [prompt.topic for prompt in prompts.prompts]
  found = []
  for name, limit in (("wide", 0), ("single", config.single_prompts)):
    at_P = screen_lib.stratified(topics, limit)
    members = tuple(
      c for c in candidates if results.group_of(c, config.narrow) == name
    )
    found.append(
      screen_lib.Group(name, members, screen_lib.subset(prompts, at_P), at_P)
    )
  return tuple(found)


def _hooks(config: config_lib.SteerConfig, metadata) -> tuple[str, ...]:
  name = config.hook or metadata.get("hook_name")
  if not name:
    raise errors.InputError(
      f"{config.sae} does not say which hook it is for; give --config.hook"
    )
  hooks = [hooks_lib.parse(h).canonical for h in (name, *config.hooks)]
  if len(set(hooks)) < len(hooks):
    raise errors.InputError(f"hooks: {', '.join(hooks)}: name each once")
  return tuple(hooks)


def _check_diff(config: config_lib.SteerConfig, hooks: tuple[str, ...]) -> None:
  if not config.diff:
    return
  hook = diff_results.summary(config.diff)["hook"]
  if hook != hooks[0]:
    raise errors.InputError(
      f"{config.diff} is about {hook}, but {hooks[0]} is steered; give the diff"
      " and the SAE of one hook"
    )


def _units(
  config: config_lib.SteerConfig,
  work: pathlib.Path,
  hooks: tuple[str, ...],
  prompts: prompts_lib.Prompts,
  load: Callable[[str], lm.LanguageModel],
  found: candidates_lib.Found,
) -> np.ndarray:
  """What a strength of 1 is at each hook, [H].

  It is kept: on another number of devices its last bit may differ.
  """
  if config.unit == "direction":
    length = float(np.linalg.norm(found.vectors[config.unit_direction]))
    return np.full(len(hooks), length)
  path = work / "units.json"
  known = artifacts.read_json(path)
  if known is None:
    sequences = [
      prompt.tokens + prompt.responses[field]
      for prompt in prompts.prompts
      for field in (prompts.behaviour, prompts.contrast)
    ]
    known = [norms.median_norm(load("base"), sequences, hook) for hook in hooks]
    artifacts.write_json_atomic(path, known)
  return np.array(known)
