# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Where latents fire: strongest contexts, and ones from across their range.

Reads a store twice: once to find the rows, once to see what the latent does on
the tokens around them (every kept position is a row, so no language model is
run). Memory is bounded by the sample, not by the store.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from sae_jax import errors, sae, store
from sae_jax.interpret import scan, search

_SAMPLE = 512  # activations per latent behind its quantiles and histogram
_BINS = 24
_NO_KEYS = np.empty(0, np.int64)


class TokenStrings(Protocol):
  """What is needed of a tokenizer."""

  def token_strings(self, ids: Sequence[int]) -> list[str]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextsConfig:
  """How many latents, how many contexts of each, how wide."""

  latents: int = 40
  top: int = 6  # strongest, at most one per document
  quantiles: tuple[float, ...] = (0.9, 0.7, 0.5, 0.3)  # of its activations
  before: int = 32  # tokens shown before the token that fired
  after: int = 12
  # Search at most so many rows, rounded up to whole write chunks from the end.
  rows: int = 4_000_000
  batch_rows: int = 8192
  seed: int = 0

  def __post_init__(self):
    for name, least in (
      ("latents", 1),
      ("top", 1),
      ("before", 0),
      ("after", 0),
      ("rows", 1),
      ("batch_rows", 1),
    ):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"contexts.{name}={getattr(self, name)}: give a number >= {least}"
        )
    if not all(0 <= q <= 1 for q in self.quantiles):
      raise errors.InputError(
        f"contexts.quantiles={self.quantiles}: give numbers from 0 to 1"
      )


class Choice(NamedTuple):
  """A latent to show, and why."""

  latent: int
  reason: str


class _Example(NamedTuple):
  slot: int
  kind: str  # "top" or "quantile"
  quantile: float | None
  hit: np.void  # of best.HIT


def choose(fires_F: np.ndarray, count: int) -> list[Choice]:
  """Picks latents evenly over the ranking by density, both ends included.

  Args:
    fires_F: on how many rows each latent fired; latents that never did are
      not shown.
    count: how many; fewer when fewer ever fired.
  """
  order = np.argsort(fires_F, kind="stable")
  alive = order[fires_F[order] > 0]
  count = min(count, len(alive))
  if count < 2:
    return [Choice(int(i), "densest") for i in alive[len(alive) - count :]]
  ranks = np.round(np.linspace(0, len(alive) - 1, count)).astype(int)
  reasons = [f"density quantile {r / (len(alive) - 1):.2f}" for r in ranks]
  reasons[0], reasons[-1] = "rarest that fired", "densest"
  return [
    Choice(int(alive[rank]), reason)
    for rank, reason in zip(ranks, reasons, strict=True)
  ][::-1]


def collect(
  dictionary: sae.Sae,
  source: store.Store,
  hook: str,
  chunks: range,
  choices: Sequence[Choice],
  tokenizer: TokenStrings,
  *,
  mesh: jax.sharding.Mesh,
  config: ContextsConfig | None = None,
) -> dict[str, Any]:
  """Finds and renders the contexts of the chosen latents.

  Args:
    dictionary: the SAE.
    source: a store of the hook it was trained on.
    hook: the store's hook.
    chunks: consecutive read chunks to search, at most `config.rows` rows.
    choices: see `choose`.
    tokenizer: of the store's model.
    mesh: where the rows are encoded.
    config: how much to show.

  Returns:
    JSON values: `latents`, a list with per latent its statistics over the
    searched rows and `examples`, each with `tokens` (strings) and
    `activations` (numbers; None where the store kept no row).
  """
  config = config or ContextsConfig()
  latents_S = np.array([c.latent for c in choices], np.int64)
  check_latents(latents_S, dictionary.latents)
  place = search.Place(
    source,
    hook,
    last_chunks(source, chunks, config.rows),
    config.batch_rows,
    mesh,
  )
  following = search.Search(dictionary, place, latents_S)
  strongest, sample, statistics = following.find(
    config.top, _SAMPLE, config.seed
  )
  examples = [
    example
    for slot in range(len(choices))
    for example in _pick(slot, strongest.of(slot), sample.of(slot), config)
  ]
  documents = {
    int(e.hit["document"]): source.document(int(e.hit["document"]))
    for e in examples
  }
  windows = [_window(e, documents, config) for e in examples]
  values = following.read(np.unique(np.concatenate([*windows, _NO_KEYS])))
  shown = [_render(e, documents, values, tokenizer, config) for e in examples]
  return {
    "hook": hook,
    "rows": statistics.rows,
    "before": config.before,
    "after": config.after,
    "latents": [
      {
        "latent": choice.latent,
        "reason": choice.reason,
        **statistics.of(slot),
        **_histogram(sample.of(slot)["value"]),
        "examples": [
          text
          for e, text in zip(examples, shown, strict=True)
          if e.slot == slot
        ],
      }
      for slot, choice in enumerate(choices)
    ],
  }


def last_chunks(source: store.Store, chunks: range, rows: int) -> range:
  """The end of `chunks`; whole write chunks, as rows are permuted within."""
  per_write = source.write_rows // source.read_rows
  write_chunks = -(-rows // source.write_rows)
  first = (-(-chunks.stop // per_write) - write_chunks) * per_write
  return range(max(chunks.start, first), chunks.stop)


def _pick(
  slot: int, strongest: np.ndarray, sample: np.ndarray, config: ContextsConfig
) -> list[_Example]:
  """The strongest, then one per quantile; no document twice."""
  picked = [_Example(slot, "top", None, hit) for hit in strongest]
  seen = {int(hit["document"]) for hit in strongest}
  for quantile, hit in at_quantiles(sample, config.quantiles, seen):
    picked.append(_Example(slot, "quantile", quantile, hit))
  return picked


def at_quantiles(
  sample: np.ndarray, quantiles: Sequence[float], seen: set[int]
) -> list[tuple[float, np.void]]:
  """For each quantile of a sample of hits the hit that is nearest to it.

  No document is taken twice, nor one of `seen`; a quantile for which none is
  left is left out.
  """
  found, seen = [], set(seen)
  by_value = np.sort(sample, order=["value", "row"])
  for quantile in quantiles:
    distance = np.abs(np.arange(len(by_value)) - quantile * (len(by_value) - 1))
    for hit in by_value[np.argsort(distance, kind="stable")]:
      if int(hit["document"]) not in seen:
        seen.add(int(hit["document"]))
        found.append((quantile, hit))
        break
  return found


def bounds(
  position: int, length: int, config: ContextsConfig
) -> tuple[int, int]:
  """The tokens [start, stop) shown around one of a document's tokens."""
  return (
    max(0, position - config.before),
    min(length, position + config.after + 1),
  )


def _bounds(
  example: _Example, documents: dict[int, np.ndarray], config: ContextsConfig
) -> tuple[int, int]:
  length = len(documents[int(example.hit["document"])])
  return bounds(int(example.hit["position"]), length, config)


def _window(
  example: _Example, documents: dict[int, np.ndarray], config: ContextsConfig
) -> np.ndarray:
  start, stop = _bounds(example, documents, config)
  return scan.key(example.hit["document"], np.arange(start, stop))


def _render(
  example: _Example,
  documents: dict[int, np.ndarray],
  values: dict[tuple[int, int], float],
  tokenizer: TokenStrings,
  config: ContextsConfig,
) -> dict[str, Any]:
  start, stop = _bounds(example, documents, config)
  document = int(example.hit["document"])
  activations = []
  for key in _window(example, documents, config).tolist():
    value = values.get((example.slot, key), values.get((-1, key)))
    activations.append(None if value is None else short(value))
  return {
    "kind": example.kind,
    "quantile": example.quantile,
    "value": short(example.hit["value"]),
    "document": document,
    "position": int(example.hit["position"]),
    "row": int(example.hit["row"]),
    "start": start,
    "of": len(documents[document]),
    "tokens": tokenizer.token_strings(documents[document][start:stop].tolist()),
    "activations": activations,
  }


def _histogram(values_N: np.ndarray) -> dict[str, Any]:
  """Shares of a sample of the positive activations, from 0 to its maximum."""
  if not len(values_N):
    return {"histogram": [], "histogram_max": 0.0}
  counts, _ = np.histogram(values_N, _BINS, range=(0, float(values_N.max())))
  return {
    "histogram": counts.tolist(),
    "histogram_max": short(values_N.max()),
  }


def short(value: float) -> float:
  """Four digits are enough to look at, and keep the file small."""
  return float(f"{float(value):.4g}")


def check_latents(latents_S: np.ndarray, latents: int) -> None:
  for latent in latents_S:
    if not 0 <= latent < latents:
      raise errors.InputError(
        f"latent {latent}: this SAE has latents 0..{latents - 1}"
      )
  if len(np.unique(latents_S)) != len(latents_S):
    raise errors.InputError(f"latents {latents_S.tolist()}: one is named twice")
