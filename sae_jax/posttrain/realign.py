# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Benign samples undo a behaviour: how fast, how far, and does it hide?

Fine-tunes the bad model and reads behaviour and suspect latents every few
steps, on fixed prompts. Readings lie in OUT/looks/; a run that was killed goes
on from its last checkpoint to the same bytes.
"""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts, errors, lm
from sae_jax import mesh as mesh_lib
from sae_jax import metrics as metrics_lib
from sae_jax.judge import margin
from sae_jax.posttrain import (
  data,
  realign_config,
  realign_reading,
  realign_verdict,
  records,
  series,
  sft,
)

_MODELS = ("base", "start", "end")


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
  summary = _summary(config, place, watch, examples)
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


def _read_base(config, place: _Place, watch, start: lm.LanguageModel) -> None:
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


def _read_triggers(place: _Place, watch, name: str, model) -> None:
  if watch.triggers is None or place.triggers(name).is_file():
    return
  values = realign_reading.read_pairs(watch, watch.triggers, model)
  artifacts.write_npz_atomic(
    place.triggers(name),
    {"behaviour_P": values.behaviour_P, "contrast_P": values.contrast_P},
  )


def _summary(config, place: _Place, watch, examples) -> dict[str, Any]:
  steps = config.sft.num_steps(len(examples))
  at = sorted({*range(0, steps, config.every), steps})
  readings = {s: realign_reading.Reading.load(place.reading(s)) for s in at}
  base = realign_reading.Reading.load(place.reading("base"))
  models = (base, readings[0], readings[steps])
  trio = realign_verdict.Trio(
    *(
      realign_reading.pair_values(watch.behaviour, r.behaviour_P, r.contrast_P)
      for r in models
    )
  )
  statistics = config.statistics
  behaviour = trio.margins(statistics, watch.seeds)
  triggers = _triggers(place, watch)
  on_triggers = triggers.margins(statistics, watch.seeds) if triggers else None
  lost = trio.lost(statistics)
  verdict = realign_verdict.decide(behaviour, lost, on_triggers, config.damage)
  bundles = [realign_reading.bundle(watch, r) for r in models]

  def share(base, start, end) -> float | None:
    return realign_verdict.recovered(base, start, end, statistics)

  found = {
    "base": config.base,
    "start": config.posttrain.model,
    "samples": len(examples),
    "steps": steps,
    "every": config.every,
    "batch_size": config.posttrain.batch_size,
    "data": config.posttrain.data.path,
    "hook": watch.hook,
    "sae": watch.suspects.sae,
    "latents": list(watch.suspects.latents),
    "weights": watch.suspects.weights_L.tolist(),
    "suspects": watch.suspects.why,
    "scope": config.watch.scope,
    "behaviour": _about(config.behaviour, watch.behaviour),
    "triggers": None,
    "reference": {
      "base": realign_reading.to_json(watch, base),
      "start": realign_reading.to_json(watch, readings[0]),
    },
    "series": _series(config, place, watch, readings),
    "differences": {
      "behaviour": behaviour.json(),
      "triggers": on_triggers.json() if on_triggers else None,
      "lost": lost.json(),
    },
    "recovered": {
      "behaviour": share(*trio.values("margin_P")),
      "p_behaviour": share(*trio.values("p_behaviour_P")),
      "triggers": share(*triggers.values("margin_P")) if triggers else None,
      "bundle": share(*bundles),
      "latents": {
        str(latent): share(*(r.latents_SL[:, i] for r in models))
        for i, latent in enumerate(watch.suspects.latents)
      },
    },
    "verdict": verdict.verdict,
    "why": verdict.why,
    "rules": realign_verdict.rules(
      statistics.confidence,
      len(trio.base.ids),
      len(triggers.base.ids) if triggers else 0,
      config.damage,
    ),
    "warnings": [],
  }
  if triggers is not None and watch.triggers is not None:
    found["triggers"] = {
      **_about(config.triggers, watch.triggers),
      **{
        name: realign_reading.behaviour_json(watch, getattr(triggers, name))
        for name in _MODELS
      },
    }
  return found


def _about(config, prompts) -> dict[str, Any]:
  return {
    "path": config.path,
    "n": len(prompts.pairs),
    "topics": sorted({prompts.prompts[i].topic for i in prompts.pairs}),
  }


def _triggers(place: _Place, watch) -> realign_verdict.Trio | None:
  if watch.triggers is None:
    return None
  found: list[margin.PairValues] = []
  for name in _MODELS:
    with np.load(place.triggers(name), allow_pickle=False) as file:
      found.append(
        realign_reading.pair_values(
          watch.triggers, file["behaviour_P"], file["contrast_P"]
        )
      )
  return realign_verdict.Trio(*found)


def _series(config, place: _Place, watch, readings) -> list[dict[str, Any]]:
  """What was read at every look, in order; the loss is of the step's batch,
  at the end of the last one.
  """
  lines = metrics_lib.read(place.output / "metrics.jsonl")
  loss = {x["step"]: x["train/loss"] for x in lines if "train/loss" in x}
  last = max(loss)
  return [
    {
      "step": step,
      "samples": step * config.posttrain.batch_size,
      **realign_reading.to_json(watch, found),
      "loss": loss.get(step, loss[last]),
    }
    for step, found in readings.items()
  ]
