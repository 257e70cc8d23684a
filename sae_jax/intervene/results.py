# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""From what was measured to verdicts: screen.parquet and summary.json.

Directions are gone through a chunk at a time, so that memory is bounded
however many there are.
"""

import dataclasses
import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sae_jax.intervene import bands as bands_lib
from sae_jax.intervene import candidates as candidates_lib
from sae_jax.intervene import screen as screen_lib
from sae_jax.intervene import strength, table, verdict
from sae_jax.judge import scores

# Single latents in summary.json; the table has all of them.
_SHOWN = 2000
DIRECTION = "direction"  # the band that directions are compared with


@dataclasses.dataclass(frozen=True)
class Result:
  """One direction with its verdict."""

  candidate: candidates_lib.Candidate
  curves: dict[str, strength.Curve]  # "up", "down"
  passed: dict[str, verdict.Passed]
  verdict: verdict.Verdict
  ways: verdict.Ways
  why: str

  @property
  def effect(self) -> float:
    """The smaller of both effects, in the expected directions."""
    return min(
      sign * self.curves[way].effect.mean for way, _, sign in strength.WAYS
    )

  @property
  def order(self) -> tuple[bool, float]:
    """Sorts the best last."""
    return self.verdict == "causal", self.effect


@dataclasses.dataclass(frozen=True)
class Random:
  """Random directions of one band on one set of prompts.

  Attributes:
    candidates: R of them.
    effects: way -> [R, S].
    chosen: way -> [R], at the strength chosen.
  """

  candidates: tuple[candidates_lib.Candidate, ...]
  effects: dict[str, np.ndarray]
  chosen: dict[str, np.ndarray]

  def band(self, way: str, but: candidates_lib.Candidate) -> verdict.Band:
    """Those that a candidate is compared with."""
    if but.kind == "direction":
      return verdict.Band(self.chosen[way])
    at = bands_lib.members(self.candidates, but)
    return verdict.Band(self.chosen[way][at])

  def json(self, strengths: Sequence[float]) -> dict[str, Any]:
    found: dict[str, Any] = {"n": len(self.candidates)}
    for way, _, _ in strength.WAYS:
      found[way] = [
        {"strength": s, **_spread(self.effects[way][:, i])}
        for i, s in enumerate(strengths)
      ]
      found[f"{way}_chosen"] = _spread(self.chosen[way])
    return found


class Results:
  """Verdicts of a measured screen, a chunk at a time."""

  def __init__(self, screen: screen_lib.Screen):
    self._screen = screen
    self._config = screen.config
    self.topics = tuple(prompt.topic for prompt in screen.prompts.prompts)
    self.unsteered = {
      model: screen_lib.unsteered(screen, model)
      for model in (
        "base",
        "tuned",
        *(["control"] * bool(self._config.control)),
      )
    }
    self.narrow = self._config.narrow
    self.random = self._random()

  def __iter__(self) -> Iterator[Result]:
    """Every direction, random ones too."""
    for group in self._screen.groups:
      for i, chunk in enumerate(self._screen.chunks(group)):
        curves = {
          way: strength.curves(
            screen_lib.steered(self._screen, model, group, i),
            self.unsteered[model].at(group.at_P),
            [self.topics[p] for p in group.at_P],
            sign,
            self._config.damage,
            self._config.statistics,
          )
          for way, model, sign in strength.WAYS
        }
        for n, at in enumerate(chunk):
          yield self._result(
            group.candidates[at], {way: curves[way][n] for way in curves}
          )

  def score(self, values_P: np.ndarray) -> scores.Score:
    return scores.score(values_P, **dataclasses.asdict(self._config.statistics))

  def shift(self, model: str = "tuned") -> scores.Score:
    """margin(model) − margin(base), paired."""
    return self.score(
      self.unsteered[model].margin - self.unsteered["base"].margin
    )

  def share(self, result: Result, way: str, sign: int) -> float | None:
    """Of the shift on the same prompts: made by adding, undone by taking."""
    for group in self._screen.groups:
      if group.name == group_of(result.candidate, self.narrow):
        difference_P = (
          self.unsteered["tuned"].margin - self.unsteered["base"].margin
        )
        shift = float(difference_P[group.at_P].mean())
        return sign * result.curves[way].effect.mean / shift if shift else None
    return None

  def _result(self, candidate, curves) -> Result:
    name = candidate.band
    wide = group_of(candidate, self.narrow) == "wide"
    if wide and name == candidates_lib.LATENT:
      name = DIRECTION
    passed = {
      way: verdict.check(
        curves[way], sign, self.random[name].band(way, candidate)
      )
      for way, _, sign in strength.WAYS
    }
    return Result(
      candidate,
      curves,
      passed,
      *verdict.decide(passed["up"], passed["down"], candidate.changed),
    )

  @property
  def direction_band(self) -> str | None:
    """Which of the other bands directions are compared with, if it is one."""
    if self.narrow:
      return _bundles_band(self.random)
    return None if self._config.single_prompts else candidates_lib.LATENT

  def _random(self) -> dict[str, Random]:
    """All bands; that of directions is one of them, or on other prompts."""
    found = {}
    for group in self._screen.groups:
      at = [i for i, c in enumerate(group.candidates) if c.is_random]
      names = dict.fromkeys(group.candidates[i].band for i in at)
      for name in names:
        of_band = [i for i in at if group.candidates[i].band == name]
        found[name] = self._band(group, of_band, group.at_P)
        if name == candidates_lib.LATENT and not self.narrow:
          found[DIRECTION] = found[name]
          single_P = self._screen.groups[-1].at_P
          found[name] = self._band(group, of_band, single_P)
    if self.narrow:
      found[DIRECTION] = found[_bundles_band(found)]
    return found

  def _band(
    self, group: screen_lib.Group, at: list[int], at_P: np.ndarray
  ) -> Random:
    """Some candidates of a group, on some of its prompts."""
    inside_P = np.flatnonzero(np.isin(group.at_P, at_P))
    effects, chosen = {}, {}
    for way, model, sign in strength.WAYS:
      effects[way], chosen[way], _ = strength.chosen_effects(
        _gather(self._screen, model, group, at).at(..., inside_P),
        self.unsteered[model].at(at_P),
        sign,
        self._config.damage,
      )
    return Random(tuple(group.candidates[i] for i in at), effects, chosen)


def _bundles_band(bands: dict[str, Random]) -> str:
  """The first bundle's: its random ones are sums too, on all prompts."""
  own = (candidates_lib.LATENT, DIRECTION)
  return next(name for name in bands if name not in own)


def group_of(candidate: candidates_lib.Candidate, narrow: bool) -> str:
  """Which prompts a candidate is measured on: "single", or "wide", all.

  Args:
    candidate: any.
    narrow: of the config: random latents are measured as single ones are.
  """
  single = candidate.kind == "latent" and (narrow or not candidate.is_random)
  return "single" if single else "wide"


@dataclasses.dataclass(frozen=True)
class Verdicts:
  """What a pass over all directions leaves in memory.

  Attributes:
    shown: bundles and directions, then the best single latents.
    random: random latents.
    counts: verdict -> single latents of it.
    random_causal: band -> random directions that the rules call causal.
  """

  shown: list[Result]
  random: list[Result]
  counts: dict[str, int]
  random_causal: dict[str, int]


def write_table(
  results: Results, writer: table.Writer, strengths: Sequence[float], norms
) -> Verdicts:
  """Writes the margins' rows of every direction."""
  best: list[tuple[tuple[bool, float], int, Result]] = []
  named: list[Result] = []
  random: list[Result] = []
  counts = {name: 0 for name in ("causal", "correlated", "inert")}
  random_causal = {name: 0 for name in results.random if name != DIRECTION}
  for number, result in enumerate(results):
    _write_rows(result, writer, strengths, norms)
    candidate = result.candidate
    if candidate.is_random:
      random_causal[candidate.band] += result.verdict == "causal"
      random += [result] * (candidate.kind == "latent")
    elif candidate.kind != "latent":
      named.append(result)
    else:
      counts[result.verdict] += 1
      heapq.heappush(best, (result.order, -number, result))
      if len(best) > _SHOWN:
        heapq.heappop(best)
  latents = [result for _, _, result in sorted(best, key=lambda e: e[:2])[::-1]]
  return Verdicts(named + latents, random, counts, random_causal)


def _write_rows(result: Result, writer: table.Writer, strengths, norms) -> None:
  candidate = result.candidate
  single = candidate.kind == "latent"
  for way, model, _ in strength.WAYS:
    curve, passed = result.curves[way], result.passed[way]
    for i, effect in enumerate(curve.effects):
      chosen = i == curve.chosen
      writer.add(
        stage="margin",
        model=model,
        name=candidate.name,
        kind=candidate.kind,
        band=candidate.band,
        random=candidate.is_random,
        latent=candidate.latents[0] if single else None,
        sign=candidate.sign if single else None,
        strength=strengths[i],
        norm=norms[model][i],
        prompts=effect.n,
        effect=effect.mean,
        ci_low=effect.json()["ci_low"],
        ci_high=effect.json()["ci_high"],
        se=effect.json()["se"],
        p_behaviour=float(curve.p_behaviour_S[i]),
        p_contrast=float(curve.p_contrast_S[i]),
        damage=float(curve.damage_S[i]),
        chosen=chosen,
        within_budget=curve.within if chosen else None,
        z=passed.z if chosen else None,
        outside=passed.outside if chosen else None,
        verdict=result.verdict,
      )


def _gather(screen, model: str, group, at: list[int]) -> strength.Pairs:
  """Some candidates of a group, [R, S, P]."""
  parts = []
  for i, chunk in enumerate(screen.chunks(group)):
    inside = [n - chunk.start for n in at if n in chunk]
    if inside:
      parts.append(screen_lib.steered(screen, model, group, i).at(inside))
  return strength.Pairs(
    np.concatenate([part.behaviour for part in parts]),
    np.concatenate([part.contrast for part in parts]),
  )


def _spread(effect_R: np.ndarray) -> dict[str, float | None]:
  band = verdict.Band(effect_R)
  return {
    "mean": band.mean,
    "sd": band.sd if np.isfinite(band.sd) else None,
    "low": float(effect_R.min()),
    "high": float(effect_R.max()),
  }
