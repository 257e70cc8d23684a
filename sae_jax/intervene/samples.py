# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Judged answers as files: samples.jsonl, rows of the table and the summary."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sae_jax import artifacts
from sae_jax.intervene import generation as generation_lib
from sae_jax.intervene import screen as screen_lib
from sae_jax.intervene import table
from sae_jax.judge import rates, scores


def write(
  path: pathlib.Path,
  stage: generation_lib.Stage,
  answers: Iterable[generation_lib.Answers],
  screen: screen_lib.Screen,
  writer: table.Writer,
) -> dict[str, Any]:
  """Writes every sample with its raw verdict; returns the summary's part."""
  config = screen.config.generation
  assert config is not None
  unsteered: dict[str, generation_lib.Answers] = {}
  rows = []
  aside = path.with_name(f".{path.name}.tmp")
  with open(aside, "w", encoding="utf-8") as file:
    for some in answers:
      for line in _lines(some, stage, screen.config.strengths):
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
      _write_row(some, screen, writer)
      if some.target is None:
        unsteered[some.model] = some
      elif some.final:
        rows.append(
          _row(some, unsteered[some.model], stage, screen, config.examples)
        )
  aside.replace(path)
  artifacts.sync_directory(path.parent)
  return {
    "judge": stage.judges["base"],
    "judges": stage.judges,
    "samples": config.samples,
    "prompts": len(stage.prompts),
    "max_new_tokens": config.max_new_tokens,
    "temperature": config.temperature,
    "incoherence": config.incoherence,
    "unsteered": {name: a.rates.json() for name, a in unsteered.items()},
    "rows": rows,
  }


def _lines(
  some: generation_lib.Answers,
  stage: generation_lib.Stage,
  strengths: Sequence[float],
):
  name, kind = "unsteered", "unsteered"
  if some.target is not None:
    name, kind = some.target.result.candidate.name, some.target.kind
  for question, texts, verdicts in zip(
    stage.questions, some.texts, some.verdicts, strict=True
  ):
    for i, (text, found) in enumerate(zip(texts, verdicts, strict=True)):
      yield {
        "model": some.model,
        "name": name,
        "kind": kind,
        "strength": None if some.strength is None else strengths[some.strength],
        "final": some.final,
        "id": question.id,
        "topic": question.topic,
        "prompt": question.text,
        "sample": i,
        "text": text,
        **found.json(),
      }


def _row(
  some: generation_lib.Answers,
  plain: generation_lib.Answers,
  stage: generation_lib.Stage,
  screen: screen_lib.Screen,
  examples: int,
) -> dict[str, Any]:
  assert some.target is not None and some.strength is not None
  return {
    "name": some.target.result.candidate.name,
    "kind": some.target.kind,
    "model": some.model,
    "strength": screen.config.strengths[some.strength],
    **some.rates.json(),
    "behaviour_change": _change(some, plain, stage, screen).json(),
    "within_budget": some.within,
    "examples": [
      {
        "id": stage.questions[p].id,
        "prompt": stage.questions[p].text,
        "text": some.texts[p][0],
        "unsteered_text": plain.texts[p][0],
        "label": some.verdicts[p][0].label,
        "unsteered_label": plain.verdicts[p][0].label,
        "score": some.verdicts[p][0].score,
      }
      for p in _spread(len(stage.questions), examples)
    ],
  }


def _change(
  some: generation_lib.Answers,
  plain: generation_lib.Answers,
  stage: generation_lib.Stage,
  screen: screen_lib.Screen,
) -> scores.Score:
  """Share of answers with the behaviour, less that of the unsteered model."""
  hits, units = [], []
  for answers in (some, plain):
    judged = [
      (verdict.label == "behaviour", question.id)
      for question, verdicts in zip(
        stage.questions, answers.verdicts, strict=True
      )
      for verdict in verdicts
      if verdict.label != "error"
    ]
    hits.append([hit for hit, _ in judged])
    units.append([unit for _, unit in judged])
  return rates.rate_difference(
    hits[0],
    units[0],
    hits[1],
    units[1],
    seeds=(screen.config.seed,),
    confidence=screen.config.statistics.confidence,
  )


def _spread(total: int, count: int) -> list[int]:
  """Evenly spaced indices, the same for all rows: nothing is picked."""
  return sorted({int(i) for i in np.linspace(0, total - 1, min(count, total))})


def _write_row(
  some: generation_lib.Answers, screen: screen_lib.Screen, writer: table.Writer
) -> None:
  about: dict[str, Any] = {"name": "unsteered", "kind": "unsteered"}
  if some.target is not None and some.strength is not None:
    result = some.target.result
    candidate = result.candidate
    single = candidate.kind == "latent"
    about = {
      "name": candidate.name,
      "kind": candidate.kind,
      "band": candidate.band,
      "random": candidate.is_random,
      "latent": candidate.latents[0] if single else None,
      "sign": candidate.sign if single else None,
      "strength": screen.config.strengths[some.strength],
      "norm": screen.norms[some.model][some.strength],
      "chosen": some.final,
      "within_budget": some.within,
      "verdict": result.verdict,
    }
  writer.add(
    stage="generation",
    model=some.model,
    prompts=len(some.texts),
    samples=sum(len(texts) for texts in some.texts),
    behaviour=_number(some.rates.behaviour.mean),
    contrast=_number(some.rates.contrast.mean),
    incoherent=_number(some.rates.incoherent.mean),
    **about,
  )


def _number(value: float) -> float | None:
  return value if np.isfinite(value) else None
