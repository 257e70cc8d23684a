# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which latents get a card: the first of every method's ranking."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from sae_jax.diff import table

_NAMED = 10  # a method names a latent if it ranks it among so many
_LEAD = "frozen"  # fills half of the cards where it was run
# Rankings that repeat another one without its controls choose no cards.
_PLAIN = "frozen_plain"
_OF_ARM = ("delta", "crosscoder")  # dictionaries of one arm each


@dataclasses.dataclass(frozen=True)
class Chosen:
  """A latent and the rankings that name it.

  Attributes:
    arm: of a dictionary that is one arm's own, else "".
    why: [{"method", "arm", "rank", "direction", "changed"}], the one that
      chose it first; direction is "risen" or "fallen", and `changed` None
      where the method has no test.
  """

  dictionary: str
  arm: str
  latent: int
  why: tuple[dict[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class _Ranking:
  """One direction of one part: latents whose score has that sign, in order."""

  part: table.Part
  direction: str
  latents: np.ndarray

  def why(self, latent: int) -> dict[str, Any] | None:
    """Its place here; None if it is not among the first."""
    place = np.flatnonzero(self.latents == latent)
    if not len(place):
      return None
    changed = self.part.columns.get("changed")
    return {
      "method": self.part.method,
      "arm": self.part.arm,
      "rank": int(place[0]) + 1,
      "direction": self.direction,
      "changed": None if changed is None else bool(changed[latent]),
    }


def owner(part: table.Part) -> tuple[str, str]:
  """The dictionary whose latents a part ranks: its name, and arm if it has."""
  return part.dictionary, part.arm if part.dictionary in _OF_ARM else ""


def choose(
  parts: Sequence[table.Part], arms: Collection[str], count: int
) -> list[Chosen]:
  """Half from the frozen dictionary's rankings, half from the other methods'.

  Rankings take turns, risen and fallen alike, and a latent that several name is
  chosen once. A latent whose score is 0 is never chosen.

  Args:
    parts: of all methods; only those of `arms` choose. Where the frozen
      dictionary was not run, the first method takes its place.
    arms: names of tuned arms, and of parts that are of no single arm.
    count: how many at most.
  """
  rankings = [
    ranking
    for part in parts
    if part.arm in arms and part.method != _PLAIN
    for ranking in _rankings(part, max(count, _NAMED))
  ]
  methods = [ranking.part.method for ranking in rankings]
  lead = _LEAD if _LEAD in methods else next(iter(methods), "")
  first = _turns(r for r in rankings if r.part.method == lead)
  others = _turns(r for r in rankings if r.part.method != lead)
  picked: dict[tuple[str, str, int], _Ranking] = {}
  for source, limit in (
    (first, -(-count // 2)),
    (others, count),
    (first, count),
  ):
    while len(picked) < limit:
      ranking, latent = next(source, (None, -1))
      if ranking is None:
        break
      picked.setdefault((*owner(ranking.part), latent), ranking)
  return [
    Chosen(dictionary, arm, latent, _why(ranking, rankings, latent))
    for (dictionary, arm, latent), ranking in picked.items()
  ]


def _rankings(part: table.Part, count: int) -> Iterator[_Ranking]:
  score_F = np.nan_to_num(np.asarray(part.columns["score"], np.float64))
  for direction, sign in (("risen", 1), ("fallen", -1)):
    order_F = np.argsort(-sign * score_F, kind="stable")[:count]
    found = order_F[sign * score_F[order_F] > 0]
    if len(found):
      yield _Ranking(part, direction, found)


def _turns(
  rankings: Iterable[_Ranking],
) -> Iterator[tuple[_Ranking, int]]:
  """The firsts of all rankings, then the seconds, and so on."""
  each = [
    [(ranking, int(latent)) for latent in ranking.latents]
    for ranking in rankings
  ]
  for row in itertools.zip_longest(*each):
    yield from (item for item in row if item is not None)


def _why(
  own: _Ranking, rankings: Sequence[_Ranking], latent: int
) -> tuple[dict[str, Any], ...]:
  places = [own.why(latent)] + [
    ranking.why(latent)
    for ranking in rankings
    if ranking is not own and owner(ranking.part) == owner(own.part)
  ]
  named = [w for w in places if w is not None]
  return tuple(w for i, w in enumerate(named) if i == 0 or w["rank"] <= _NAMED)
