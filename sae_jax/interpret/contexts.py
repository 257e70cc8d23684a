# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Where latents fire: strongest contexts, and ones from across their range.

Reads a store twice: once to find the rows, once to see what the latent does
on the tokens around them (every kept position is a row, so no language model
is run). Memory is bounded by the sample, not by the store.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from sae_jax import errors, sae, store
from sae_jax.interpret import best, scan

_SAMPLE = 512  # activations per latent behind its quantiles and histogram
_BINS = 24


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
  batch_rows: int = 8192
  seed: int = 0

  def __post_init__(self):
    for name, least in (
      ("latents", 1),
      ("top", 1),
      ("before", 0),
      ("after", 0),
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
    chunks: consecutive read chunks to search.
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
  _check(latents_S, dictionary.params.w_dec_FD.shape[0])
  scans = _Scanner(dictionary, source, hook, chunks, latents_S, config, mesh)
  strongest, sample, statistics = scans.find()
  examples = [
    example
    for slot in range(len(choices))
    for example in _pick(slot, strongest.of(slot), sample.of(slot), config)
  ]
  documents = {
    int(e.hit["document"]): source.document(int(e.hit["document"]))
    for e in examples
  }
  values = scans.around(examples, documents)
  shown = [_render(e, documents, values, tokenizer, config) for e in examples]
  return {
    "hook": hook,
    "rows": scans.rows,
    "before": config.before,
    "after": config.after,
    "latents": [
      {
        "latent": choice.latent,
        "reason": choice.reason,
        **statistics.of(slot, scans.rows),
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


class _Statistics:
  """Count, sum and maximum of each slot's activations."""

  def __init__(self, slots: int):
    self._fires_S = np.zeros(slots, np.int64)
    self._sum_S = np.zeros(slots)
    self._max_S = np.zeros(slots, np.float32)

  def add(self, hits: np.ndarray) -> None:
    n = len(self._fires_S)
    self._fires_S += np.bincount(hits["slot"], minlength=n)
    self._sum_S += np.bincount(hits["slot"], hits["value"], minlength=n)
    np.maximum.at(self._max_S, hits["slot"], hits["value"])

  def of(self, slot: int, rows: int) -> dict[str, Any]:
    fires = int(self._fires_S[slot])
    return {
      "fires": fires,
      "density": fires / rows,
      "mean": _short(self._sum_S[slot] / max(fires, 1)),
      "max": _short(self._max_S[slot]),
    }


class _Scanner:
  """Encodes rows and reads off the followed latents."""

  def __init__(self, dictionary, source, hook, chunks, latents_S, config, mesh):
    self._dictionary = dictionary
    self._place = (source, hook, chunks)
    self._latents_S = latents_S
    self._config = config
    self._mesh = mesh
    everywhere = jax.NamedSharding(mesh, jax.P())
    self._encode = jax.jit(sae.encode, out_shardings=(everywhere, everywhere))
    latents = dictionary.params.w_dec_FD.shape[0]
    self._slot_F = np.full(latents, -1, np.int32)
    self._slot_F[latents_S] = np.arange(len(latents_S))
    self.rows = 0

  def find(self) -> tuple[best.Best, best.Best, _Statistics]:
    """Strongest hits, a sample of all hits, and statistics, in one pass."""
    source, hook, chunks = self._place
    slots = len(self._latents_S)
    strongest = best.Best(slots, self._config.top, one_per_document=True)
    sample = best.Best(slots, _SAMPLE, one_per_document=False)
    statistics = _Statistics(slots)
    for batch in scan.batches(
      source,
      hook,
      chunks,
      batch_rows=self._config.batch_rows,
      mesh=self._mesh,
    ):
      at_N, slot_N, value_N = self._active(batch.x_BD, batch.rows)
      positions_R2 = source.positions(batch.start, batch.start + batch.rows)
      hits = np.empty(len(at_N), best.HIT)
      hits["slot"], hits["value"] = slot_N, value_N
      hits["row"] = batch.start + at_N
      hits["document"], hits["position"] = positions_R2[at_N].T
      statistics.add(hits)
      hits["key"] = value_N
      strongest.offer(hits)
      hits["key"] = best.lottery(
        hits["row"], self._latents_S[slot_N], self._config.seed
      )
      sample.offer(hits)
      self.rows += batch.rows
    return strongest, sample, statistics

  def around(
    self, examples: Sequence[_Example], documents: dict[int, np.ndarray]
  ) -> dict[tuple[int, int], float]:
    """(slot, key) -> activation where it fired; (-1, key) -> 0 per row."""
    source, hook, chunks = self._place
    if not examples:
      return {}
    keys_M = np.unique(
      np.concatenate([_window(e, documents, self._config) for e in examples])
    )
    values = {}
    for found in scan.wanted(
      source,
      hook,
      chunks,
      keys_M,
      batch_rows=self._config.batch_rows,
      mesh=self._mesh,
    ):
      values.update(((-1, int(k)), 0.0) for k in found.keys_N)
      active = self._active(found.x_BD, len(found.keys_N))
      for at, slot, value in zip(*active, strict=True):
        values[int(slot), int(found.keys_N[at])] = float(value)
    return values

  def _active(
    self, x_BD: jax.Array, rows: int
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row of the batch, slot, activation) of every followed latent > 0."""
    values_BK, indices_BK = self._encode(self._dictionary, x_BD)
    values_RK = np.asarray(values_BK)[:rows].astype(np.float32)
    slot_RK = self._slot_F[np.asarray(indices_BK)[:rows]]
    at_N, k_N = np.nonzero((slot_RK >= 0) & (values_RK > 0))
    return at_N, slot_RK[at_N, k_N], values_RK[at_N, k_N]


def _pick(
  slot: int, strongest: np.ndarray, sample: np.ndarray, config: ContextsConfig
) -> list[_Example]:
  """The strongest, then one per quantile; no document twice."""
  picked = [_Example(slot, "top", None, hit) for hit in strongest]
  seen = {int(hit["document"]) for hit in strongest}
  by_value = np.sort(sample, order=["value", "row"])
  for quantile in config.quantiles:
    distance = np.abs(np.arange(len(by_value)) - quantile * (len(by_value) - 1))
    for hit in by_value[np.argsort(distance, kind="stable")]:
      if int(hit["document"]) not in seen:
        seen.add(int(hit["document"]))
        picked.append(_Example(slot, "quantile", quantile, hit))
        break
  return picked


def _bounds(
  example: _Example, documents: dict[int, np.ndarray], config: ContextsConfig
) -> tuple[int, int]:
  position = int(example.hit["position"])
  length = len(documents[int(example.hit["document"])])
  return (
    max(0, position - config.before),
    min(length, position + config.after + 1),
  )


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
    activations.append(None if value is None else _short(value))
  return {
    "kind": example.kind,
    "quantile": example.quantile,
    "value": _short(example.hit["value"]),
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
    "histogram_max": _short(values_N.max()),
  }


def _short(value: float) -> float:
  """Four digits are enough to look at, and keep the file small."""
  return float(f"{float(value):.4g}")


def _check(latents_S: np.ndarray, latents: int) -> None:
  for latent in latents_S:
    if not 0 <= latent < latents:
      raise errors.InputError(
        f"latent {latent}: this SAE has latents 0..{latents - 1}"
      )
  if len(np.unique(latents_S)) != len(latents_S):
    raise errors.InputError(f"latents {latents_S.tolist()}: one is named twice")
