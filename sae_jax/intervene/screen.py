# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The cheap stage: paired log-probabilities of every direction and strength.

What is measured lies in chunks on disk that appear whole; a screen that was
killed goes on with those that are missing. A chunk's content depends on the
config alone, so the bytes are those of an uninterrupted run.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sae_jax import artifacts, errors, interrupt, lm, metrics
from sae_jax.intervene import candidates as candidates_lib
from sae_jax.intervene import config as config_lib
from sae_jax.intervene import edits, pair_scores, strength
from sae_jax.judge import prompts as prompts_lib

# Steered pairs of one chunk: some 7 % of the work of a model whose hook is at
# 2/3 of its depth is then the unsteered part, which each chunk runs again.
_CHUNK_PAIRS = 2048


@dataclasses.dataclass(frozen=True)
class Group:
  """Directions that are measured on the same prompts.

  Attributes:
    name: of its files.
    candidates: in order.
    prompts: all of which have both responses.
    at_P: which of the screen's prompts they are.
  """

  name: str
  candidates: tuple[candidates_lib.Candidate, ...]
  prompts: prompts_lib.Prompts
  at_P: np.ndarray


@dataclasses.dataclass(frozen=True)
class Screen:
  """Everything that a measurement depends on.

  Attributes:
    alphas_HS: length of what is added, of each hook and strength.
    load: the model called "base", "tuned" or "control".
  """

  config: config_lib.SteerConfig
  hooks: tuple[str, ...]
  rows: candidates_lib.Rows
  vectors: dict[str, np.ndarray]
  groups: tuple[Group, ...]
  prompts: prompts_lib.Prompts
  alphas_HS: np.ndarray
  load: Callable[[str], lm.LanguageModel]
  work: pathlib.Path

  @property
  def chunk(self) -> int:
    """Directions of a chunk."""
    pairs = len(self.prompts.prompts) * len(self.config.strengths)
    return max(1, _CHUNK_PAIRS // pairs)

  def chunks(self, group: Group) -> list[range]:
    total = len(group.candidates)
    return [
      range(first, min(first + self.chunk, total))
      for first in range(0, total, self.chunk)
    ]


def measure(screen: Screen, show: bool) -> None:
  """Measures what is missing, one model after the other.

  Raises:
    errors.Interrupted: a signal came; the chunks so far are kept.
    errors.InputError: a model or direction cannot be used.
  """
  names = ["base", "tuned", *(["control"] if screen.config.control else [])]
  total = sum(len(g.candidates) for g in screen.groups) * 2
  total *= len(screen.config.strengths)
  done = 0
  with (
    metrics.Progress(total, "steered scorings", show=show) as bar,
    interrupt.catch() as stop,
  ):
    for name in names:
      groups = () if name == "control" else screen.groups
      missing = [
        (group, i, chunk)
        for group in groups
        for i, chunk in enumerate(screen.chunks(group))
        if not _file(screen, name, group.name, i).is_file()
      ]
      whole = sum(len(g.candidates) for g in groups)
      left = sum(len(chunk) for _, _, chunk in missing)
      done += (whole - left) * len(screen.config.strengths)
      first = _file(screen, name, "unsteered", 0)
      if not missing and first.is_file():
        continue
      model = screen.load(name)
      if not first.is_file():
        _write(
          first, _scorer(screen, model, screen.prompts).scores(edits.none(1))
        )
      scorers: dict[str, pair_scores.Scorer] = {}
      for group, i, chunk in missing:
        if stop.requested:
          raise errors.Interrupted(
            f"{stop.requested}: {done:,} of {total:,} scorings are done; run"
            " the same command again to go on"
          )
        if group.name not in scorers:
          scorers[group.name] = _scorer(screen, model, group.prompts)
        started = time.monotonic()
        found = scorers[group.name].scores(
          _interventions(screen, group, chunk, -1 if name == "tuned" else 1)
        )
        seconds = time.monotonic() - started
        _write(_file(screen, name, group.name, i), found, seconds)
        done += len(chunk) * len(screen.config.strengths)
        bar.update(done, name)
      # Two models need not fit in memory at once.
      del model, scorers


def unsteered(screen: Screen, model: str) -> strength.Pairs:
  """[P] of all prompts."""
  found = _read(_file(screen, model, "unsteered", 0))
  return found.at(0)


def steered(
  screen: Screen, model: str, group: Group, chunk: int
) -> strength.Pairs:
  """[candidates of the chunk, strengths, prompts of the group]."""
  found = _read(_file(screen, model, group.name, chunk))
  shape = (-1, len(screen.config.strengths), len(group.at_P))
  return strength.Pairs(
    found.behaviour.reshape(shape), found.contrast.reshape(shape)
  )


def cost(screen: Screen) -> dict[str, Any]:
  """What was run, and how long it took; only the time differs between runs."""
  interventions = rows = 0
  seconds = 0.0
  for model in ("base", "tuned"):
    for group in screen.groups:
      each = len(screen.config.strengths) * len(group.candidates)
      interventions += each
      rows += each * 2 * len(group.at_P)
      for i in range(len(screen.chunks(group))):
        with np.load(_file(screen, model, group.name, i)) as file:
          seconds += float(file["seconds"])
  return {
    "interventions": interventions,
    "rows": rows,
    "seconds": round(seconds, 3),
    "per_intervention": round(seconds / interventions, 6),
  }


def subset(
  prompts: prompts_lib.Prompts, at_P: Sequence[int] | np.ndarray
) -> prompts_lib.Prompts:
  chosen = tuple(prompts.prompts[i] for i in at_P)
  return dataclasses.replace(prompts, prompts=chosen)


def stratified(topics: Sequence[str], count: int) -> np.ndarray:
  """So many indices, equally many of each topic, each topic's first ones.

  All of them where `count` is 0 or there are no more.
  """
  if not count or count >= len(topics):
    return np.arange(len(topics))
  seen: dict[str, int] = {}
  turn_P = np.array([_next(seen, topic) for topic in topics])
  order_P = np.lexsort((np.arange(len(topics)), turn_P))
  return np.sort(order_P[:count])


def _next(seen: dict[str, int], topic: str) -> int:
  seen[topic] = seen.get(topic, -1) + 1
  return seen[topic]


def _interventions(
  screen: Screen, group: Group, chunk: range, sign: int
) -> edits.Interventions:
  """All strengths of each candidate of a chunk, at all hooks."""
  chosen = [group.candidates[i] for i in chunk]
  unit_ND = candidates_lib.units(chosen, screen.rows, screen.vectors)
  parts = []
  for hook, alpha_S in zip(screen.hooks, screen.alphas_HS, strict=True):
    vector_NSD = sign * alpha_S[None, :, None] * unit_ND[:, None, :]
    flat = vector_NSD.reshape(-1, unit_ND.shape[1]).astype(np.float32)
    parts.append(edits.add(hook, flat, screen.config.where))
  return edits.combine(*parts)


def _scorer(screen, model, prompts) -> pair_scores.Scorer:
  return pair_scores.Scorer(model, prompts, batch_rows=screen.config.batch_rows)


def _file(screen: Screen, model: str, group: str, chunk: int) -> pathlib.Path:
  return screen.work / f"{model}.{group}.{chunk:06}.npz"


def _write(
  path: pathlib.Path, found: pair_scores.PairScores, seconds: float = 0.0
) -> None:
  artifacts.write_npz_atomic(
    path,
    {
      "behaviour": found.behaviour_NP,
      "contrast": found.contrast_NP,
      "seconds": np.float64(seconds),
    },
  )


def _read(path: pathlib.Path) -> strength.Pairs:
  with np.load(path, allow_pickle=False) as file:
    return strength.Pairs(file["behaviour"], file["contrast"])
