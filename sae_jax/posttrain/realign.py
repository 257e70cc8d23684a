# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Benign samples undo a behaviour: how fast, how far, and does it hide?

Fine-tunes the bad model and reads behaviour and suspect latents every few
steps, on fixed prompts. Readings lie in OUT/looks/; a run that was killed goes
on from its last checkpoint to the same bytes.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts, errors, lm, metrics
from sae_jax import mesh as mesh_lib
from sae_jax.judge import margin
from sae_jax.posttrain import (
  data,
  realign_config,
  realign_reading,
  realign_summary,
  realign_verdict,
  records,
  series,
  sft,
)


@dataclasses.dataclass(frozen=True)
class _Place:
  """Names of the files."""

  output: pathlib.Path

  @property
  def looks(self) -> pathlib.Path:
    return self.output / "looks"

  def reading(self, name: str | int) -> pathlib.Path:
    """Of a model by name, or of a step."""
    name = name if isinstance(name, str) else f"{name:06d}"
    return self.looks / f"{name}.npz"

  def triggers(self, name: str) -> pathlib.Path:
    return self.looks / f"triggers_{name}.npz"


def run(
  config: realign_config.RealignConfig, output: artifacts.Output
) -> dict[str, Any]:
  """Writes `model/`, `looks/`, `metrics.jsonl` and `summary.json`.

  Returns:
    the job's result.

  Raises:
    errors.InputError: models, samples, prompts and suspects do not fit.
    errors.Interrupted: see `sft.train`.
    metrics.NonFiniteError: the loss.
  """
  place = _Place(output.path)
  start = _load(config, config.posttrain.model)
  watch = realign_reading.open_watch(config, start)
  examples = records.examples(
    config.posttrain.data, start.tokenizer, start.config.learned_positions
  )
  data.check(start, examples)
  place.looks.mkdir(exist_ok=True)
  _read_base(config, place, watch, start)
  _read_triggers(place, watch, "start", start)

  def look(step: int, tuned: sft.Tuned) -> dict[str, float]:
    found = realign_reading.read(watch, tuned.model)
    found.save(place.reading(step))
    return realign_reading.metrics(watch, found)

  looks = [sft.Look(config.every, look)]
  if config.posttrain.series_every:
    looks.append(series.look(config.posttrain, start, output.path / "series"))
  tuned = sft.train(
    start, examples, config.sft, directory=output.path, looks=looks
  )
  _read_triggers(place, watch, "end", tuned.model)
  model = series.save(config.posttrain, start, tuned, output.path / "model")
  summary = realign_summary.summarise(_found(config, place, watch, examples))
  output.write_json("summary.json", summary)
  share = summary["recovered"]
  return {
    "realign": str(output.path),
    "model": str(model),
    "verdict": summary["verdict"],
    "why": summary["why"],
    "steps": summary["steps"],
    "samples": summary["samples"],
    "recovered/behaviour": share["behaviour"],
    "recovered/bundle": share["bundle"],
  }


def _load(
  config: realign_config.RealignConfig, source: str
) -> lm.LanguageModel:
  return lm.load_lm(
    source,
    mesh=mesh_lib.make(config.posttrain.mesh),
    dtype=jnp.dtype(config.posttrain.dtype),
  )


def _read_base(
  config: realign_config.RealignConfig,
  place: _Place,
  watch: realign_reading.Watch,
  start: lm.LanguageModel,
) -> None:
  """Reads the base model, unless a run before this one did."""
  wanted = [place.reading("base")]
  if watch.triggers is not None:
    wanted.append(place.triggers("base"))
  if all(path.is_file() for path in wanted):
    return
  base = _load(config, config.base)
  realign_reading.same_tokenizer(base, start)
  if base.config.d_model != start.config.d_model:
    raise errors.InputError(
      f"base={config.base} is {base.config.d_model} wide and posttrain.model is"
      f" {start.config.d_model}; give the model that it was made from"
    )
  _read_triggers(place, watch, "base", base)
  realign_reading.read(watch, base).save(place.reading("base"))


def _read_triggers(
  place: _Place,
  watch: realign_reading.Watch,
  name: str,
  model: lm.LanguageModel,
) -> None:
  if watch.triggers is None or place.triggers(name).is_file():
    return
  values = realign_reading.read_pairs(watch, watch.triggers, model)
  artifacts.write_npz_atomic(
    place.triggers(name),
    {"behaviour_P": values.behaviour_P, "contrast_P": values.contrast_P},
  )


def _found(
  config: realign_config.RealignConfig,
  place: _Place,
  watch: realign_reading.Watch,
  examples: Sequence[data.Example],
) -> realign_summary.Found:
  """Everything that was read, from the files."""
  steps = config.sft.num_steps(len(examples))
  at = sorted({*range(0, steps, config.every), steps})
  lines = metrics.read(place.output / "metrics.jsonl")
  return realign_summary.Found(
    config=config,
    watch=watch,
    examples=examples,
    base=realign_reading.Reading.load(place.reading("base")),
    looks={n: realign_reading.Reading.load(place.reading(n)) for n in at},
    triggers=_triggers(place, watch),
    loss={x["step"]: x["train/loss"] for x in lines if "train/loss" in x},
  )


def _triggers(
  place: _Place, watch: realign_reading.Watch
) -> realign_verdict.Trio | None:
  if watch.triggers is None:
    return None
  found: list[margin.PairValues] = []
  for name in ("base", "start", "end"):
    with np.load(place.triggers(name), allow_pickle=False) as file:
      found.append(
        margin.PairValues.of(
          watch.triggers, file["behaviour_P"], file["contrast_P"]
        )
      )
  return realign_verdict.Trio(*found)
