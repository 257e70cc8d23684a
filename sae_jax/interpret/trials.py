# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Contexts to explain a latent from, and others to test the explanation on.

Those it is tested on come from other documents: contexts in which it fires,
from weak to strong, and contexts in which it does not fire at all.
"""

import dataclasses
from collections.abc import (
  Callable,
  Collection,
  Iterable,
  Mapping,
  Sequence,
)
from typing import NamedTuple

import jax
import numpy as np

from sae_jax import sae, store
from sae_jax.interpret import best, contexts, on_mesh, scan, search

_SAMPLE = 512  # activations per latent that tests are drawn from
_CHUNKS = 64  # read chunks from which silent contexts are drawn
_POOL = 8  # silent contexts looked at, as a multiple of those wanted


@dataclasses.dataclass(frozen=True)
class Sample:
  """A context and what the latent does on each token of it.

  Attributes:
    activations: 0 also where the store kept no row.
  """

  tokens: list[str]
  activations: list[float]

  @property
  def on(self) -> list[int]:
    """The tokens on which the latent fires."""
    return [t for t, a in enumerate(self.activations) if a > 0]

  @property
  def off(self) -> list[int]:
    return [t for t, a in enumerate(self.activations) if not a > 0]

  def text(self, marked: Collection[int] = ()) -> str:
    """One line, « and » around marked tokens; neighbours share a pair."""
    text = "".join(
      f"«{token}»" if t in marked else token
      for t, token in enumerate(self.tokens)
    )
    text = text.replace("»«", "")
    return text.replace("\r", "\\r").replace("\n", "\\n")


@dataclasses.dataclass(frozen=True)
class Trials:
  """The contexts of one latent; no document or text is in two of the lists.

  Attributes:
    model: whose activations these are: the one in which it fires most often.
    highest: its largest activation there, over all rows that were searched.
    shown: to explain it from, strongest first.
    held_out: in which it fires, weakest first.
    silent: in which it does not.
  """

  latent: int
  model: str
  highest: float
  shown: list[Sample]
  held_out: list[Sample]
  silent: list[Sample]


class _Place(NamedTuple):
  document: int
  position: int


def draw(
  dictionary: sae.Sae,
  stores: Mapping[str, store.Store],
  hook: str,
  latents: Sequence[int],
  tokenizer: contexts.TokenStrings,
  *,
  shown: int,
  held_out: int,
  mesh: jax.sharding.Mesh,
  config: contexts.ContextsConfig,
  keep: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[Trials]:
  """Draws the contexts of each latent.

  Half of those shown are its strongest, the others, like those held out, are
  spread over its activations. A latent that fires in too few documents gets
  fewer: at least half of what is not among the strongest is held out.

  Args:
    dictionary: the SAE.
    stores: model -> paired store.
    hook: of the dictionary.
    latents: which.
    tokenizer: of the stores' models.
    shown: contexts to explain from.
    held_out: contexts to test on, and as many silent ones.
    mesh: where rows are encoded.
    config: width of the contexts, rows to search, seed.
    keep: which rows count, see `search.Place`.
  """
  latents_S = np.array(list(latents), np.int64)
  contexts.check_latents(latents_S, dictionary.latents)
  placed = on_mesh.place(dictionary, mesh)
  searches = {
    name: _search(placed, source, hook, latents_S, mesh, config, keep)
    for name, source in stores.items()
  }
  found = {
    name: following.find(shown // 2, _SAMPLE, config.seed)
    for name, following in searches.items()
  }
  drawn: dict[int, Trials] = {}
  for name, slots in _slots(found, len(latents_S)).items():
    strongest, some, statistics = found[name]
    following = searches[name]
    pool = _pool(following.place, _POOL * held_out, config.seed)
    places = {
      slot: _places(strongest.of(slot), some.of(slot), shown, held_out)
      for slot in slots
    }
    reader = _Reader(following, tokenizer, config)
    reader.read([p for a, b in places.values() for p in (*a, *b)] + pool)
    for slot, (seen, tests) in places.items():
      taken = {place.document for place in (*seen, *tests)}
      silent = reader.silent(slot, pool, taken)
      once = _Once()
      drawn[slot] = Trials(
        latent=int(latents_S[slot]),
        model=name,
        highest=statistics.of(slot)["max"],
        shown=once.of(reader.sample(slot, place) for place in seen),
        held_out=once.of(reader.sample(slot, place) for place in tests),
        silent=once.of(reader.sample(slot, place) for place in silent)[
          :held_out
        ],
      )
  return [drawn[slot] for slot in range(len(latents_S))]


class _Once:
  """Drops contexts whose text came before: corpora repeat themselves."""

  def __init__(self):
    self._seen: set[tuple[str, ...]] = set()

  def of(self, samples: Iterable[Sample]) -> list[Sample]:
    kept = []
    for sample in samples:
      if tuple(sample.tokens) not in self._seen:
        self._seen.add(tuple(sample.tokens))
        kept.append(sample)
    return kept


def _slots(
  found: Mapping[str, tuple[best.Best, best.Best, search.Statistics]],
  count: int,
) -> dict[str, list[int]]:
  """model -> the latents that fire more often in it than in any other."""
  slots: dict[str, list[int]] = {}
  for slot in range(count):
    fires = {name: s.of(slot)["fires"] for name, (_, _, s) in found.items()}
    slots.setdefault(max(fires, key=lambda n: fires[n]), []).append(slot)
  return slots


def _search(placed, source, hook, latents_S, mesh, config, keep):
  chunks = contexts.last_chunks(source, range(source.num_chunks), config.rows)
  place = search.Place(
    source, source.hook(hook), chunks, config.batch_rows, mesh, keep
  )
  return search.Search(placed, place, latents_S)


def _places(
  strongest: np.ndarray, sample: np.ndarray, shown: int, held_out: int
) -> tuple[list[_Place], list[_Place]]:
  """Where the contexts to show and to hold out are."""
  top = [_place(hit) for hit in strongest]
  taken = {place.document for place in top}
  once = []  # one hit per document
  for hit in sample:
    if int(hit["document"]) not in taken:
      taken.add(int(hit["document"]))
      once.append(hit)
  once.sort(key=lambda hit: (float(hit["value"]), int(hit["row"])))
  tests = _spread(len(once), min(held_out, -(-len(once) // 2)))
  rest = [i for i in range(len(once)) if i not in set(tests)]
  more = [rest[i] for i in _spread(len(rest), shown - len(top))]
  return (
    top + [_place(once[i]) for i in reversed(more)],
    [_place(once[i]) for i in tests],
  )


def _place(hit: np.void) -> _Place:
  return _Place(int(hit["document"]), int(hit["position"]))


def _spread(size: int, count: int) -> list[int]:
  """Up to `count` numbers spread evenly over range(size)."""
  count = min(size, count)
  return [(2 * i + 1) * size // (2 * count) for i in range(count)]


def _pool(at: search.Place, count: int, seed: int) -> list[_Place]:
  """Random rows, one per document."""
  rng = np.random.default_rng(seed)
  chunks = rng.permutation(np.array(at.chunks))[:_CHUNKS]
  rows = []
  for chunk in chunks.tolist():
    start = chunk * at.source.read_rows
    stop = min(start + at.source.read_rows, at.source.rows)
    rows_R2 = at.source.positions(start, stop)
    rows.append(rows_R2 if at.keep is None else rows_R2[at.keep(rows_R2)])
  rows_N2 = rng.permutation(np.concatenate(rows))
  _, first_N = np.unique(rows_N2[:, 0], return_index=True)
  chosen_N2 = rows_N2[np.sort(first_N)[:count]]
  return [_Place(int(d), int(t)) for d, t in chosen_N2]


class _Reader:
  """Contexts around places, and what the latents of a search do there."""

  def __init__(
    self,
    following: search.Search,
    tokenizer: contexts.TokenStrings,
    config: contexts.ContextsConfig,
  ):
    self._following = following
    self._source = following.place.source
    self._tokenizer = tokenizer
    self._config = config
    self._documents: dict[int, np.ndarray] = {}
    self._values: dict[tuple[int, int], float] = {}

  def read(self, places: Sequence[_Place]) -> None:
    for number in sorted({place.document for place in places}):
      self._documents[number] = self._source.document(number)
    keys = [self._keys(place) for place in places]
    if keys:
      self._values = self._following.read(np.unique(np.concatenate(keys)))

  def sample(self, slot: int, place: _Place) -> Sample:
    start, stop = self._bounds(place)
    tokens_T = self._documents[place.document][start:stop]
    return Sample(
      self._tokenizer.token_strings(tokens_T.tolist()),
      self._activations(slot, place),
    )

  def silent(
    self, slot: int, places: Sequence[_Place], taken: set[int]
  ) -> list[_Place]:
    """Those in whose context the latent never fires."""
    return [
      place
      for place in places
      if place.document not in taken and not any(self._activations(slot, place))
    ]

  def _activations(self, slot: int, place: _Place) -> list[float]:
    keys = self._keys(place).tolist()
    return [self._values.get((slot, key), 0.0) for key in keys]

  def _bounds(self, place: _Place) -> tuple[int, int]:
    length = len(self._documents[place.document])
    return contexts.bounds(place.position, length, self._config)

  def _keys(self, place: _Place) -> np.ndarray:
    return scan.key(place.document, np.arange(*self._bounds(place)))
