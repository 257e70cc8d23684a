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

# Steered pairs of one chunk, the most that a kill loses: a minute or two of a
# model of 135 M weights on two cores.
_CHUNK_PAIRS = 1024


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
  def norms(self) -> dict[str, list[float | None]]:
    """What is added at the first hook, of each strength; None: a projection."""
    added = self.alphas_HS[0].tolist()
    projects = self.config.removal == "project_out"
    return {"base": added, "tuned": [None] * len(added) if projects else added}

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
  missing = {name: _missing(screen, name) for name in names}
  strengths = len(screen.config.strengths)
  total = sum(len(g.candidates) for g in screen.groups) * 2 * strengths
  left = sum(len(c) for part in missing.values() for _, _, c in part)
  done = total - left * strengths
  with (
    metrics.Progress(total, "steered scorings", initial=done, show=show) as bar,
    interrupt.catch() as stop,
  ):

    def report(name: str, now: int):
      if stop.requested:
        raise errors.Interrupted(
          f"{stop.requested}: the screen is unfinished; run the same command"
          " again to go on where it stopped"
        )
      bar.update(now, name)

    for name in names:
      first = _file(screen, name, "unsteered", 0)
      if missing[name] or not first.is_file():
        done = _measure_model(screen, name, missing[name], done, report)


def _missing(screen: Screen, name: str) -> list[tuple[Group, int, range]]:
  """Chunks that are not on disk; nothing is steered in the control."""
  return [
    (group, i, chunk)
    for group in screen.groups
    if name != "control"
    for i, chunk in enumerate(screen.chunks(group))
    if not _file(screen, name, group.name, i).is_file()
  ]


def _measure_model(
  screen: Screen,
  name: str,
  missing: list[tuple[Group, int, range]],
  done: int,
  report: Callable[[str, int], None],
) -> int:
  """Unsteered, then the chunks; returns how many scorings there are then."""
  scorers = _Scorers(screen, name)
  all_S = np.arange(len(screen.config.strengths))
  first = _file(screen, name, "unsteered", 0)
  if not first.is_file():
    _write(first, scorers.of(screen.prompts).scores(edits.none(1)))
  for group, i, chunk in missing:
    report(name, done)
    started = time.monotonic()
    chosen = group.candidates[chunk.start : chunk.stop]
    found = scorers.of(group.prompts).scores(
      steer(screen, chosen, np.tile(all_S, (len(chosen), 1)), name),
      lambda more, done=done: report(name, done + more),
    )
    seconds = time.monotonic() - started
    _write(_file(screen, name, group.name, i), found, seconds)
    done += len(chunk) * len(all_S)
  report(name, done)
  return done


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


def steer(
  screen: Screen,
  candidates: Sequence[candidates_lib.Candidate],
  at_NS: np.ndarray,
  model: str,
) -> edits.Interventions:
  """Each candidate at some of the strengths, N · S interventions.

  Args:
    screen: with hooks, lengths and directions.
    candidates: N of them.
    at_NS: indices of the strengths.
    model: "base", to which is added, or "tuned", from which is removed.
  """
  sign = -1 if model == "tuned" else 1
  config = screen.config
  project = model == "tuned" and config.removal == "project_out"
  unit_ND = candidates_lib.units(candidates, screen.rows, screen.vectors)
  parts = []
  for hook, alpha_S in zip(screen.hooks, screen.alphas_HS, strict=True):
    if project:
      base_N1D = np.repeat(unit_ND, at_NS.shape[1], axis=0)[:, None]
      shares_N = np.array(config.strengths)[at_NS].reshape(-1)
      parts.append(edits.project_out(hook, base_N1D, config.where, shares_N))
      continue
    vector_NSD = sign * alpha_S[at_NS][..., None] * unit_ND[:, None, :]
    flat = vector_NSD.reshape(-1, unit_ND.shape[1]).astype(np.float32)
    parts.append(edits.add(hook, flat, config.where))
  return edits.combine(*parts)


class _Scorers:
  """One of each set of prompts, on one model."""

  def __init__(self, screen: Screen, name: str):
    self._screen = screen
    self._model = screen.load(name)
    self._made: dict[tuple[str, ...], pair_scores.Scorer] = {}

  def of(self, prompts: prompts_lib.Prompts) -> pair_scores.Scorer:
    ids = tuple(prompt.id for prompt in prompts.prompts)
    if ids not in self._made:
      self._made[ids] = pair_scores.Scorer(
        self._model, prompts, batch_rows=self._screen.config.batch_rows
      )
    return self._made[ids]


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
