# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Passes over a store that follow a few latents.

The first finds where they fire and how strongly; the second reads what they
do at given positions. Only their hits leave the encoder's output.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from sae_jax import sae, store
from sae_jax.interpret import best, on_mesh, scan


class Place(NamedTuple):
  """Rows of one hook, and how to read them.

  `keep` takes the (document, position) of rows, int32 [R, 2], and says which
  of them count, bool [R]; None: all.
  """

  source: store.Store
  hook: str
  chunks: range  # consecutive read chunks
  batch_rows: int
  mesh: jax.sharding.Mesh
  keep: Callable[[np.ndarray], np.ndarray] | None = None


class Statistics:
  """Count, sum and maximum of each slot's activations."""

  def __init__(self, slots: int):
    self.rows = 0
    self._fires_S = np.zeros(slots, np.int64)
    self._sum_S = np.zeros(slots)
    self._max_S = np.zeros(slots, np.float32)

  def add(self, hits: np.ndarray, rows: int) -> None:
    n = len(self._fires_S)
    self.rows += rows
    self._fires_S += np.bincount(hits["slot"], minlength=n)
    self._sum_S += np.bincount(hits["slot"], hits["value"], minlength=n)
    np.maximum.at(self._max_S, hits["slot"], hits["value"])

  def of(self, slot: int) -> dict[str, Any]:
    fires = int(self._fires_S[slot])
    return {
      "fires": fires,
      "density": fires / max(self.rows, 1),
      "mean": float(self._sum_S[slot] / max(fires, 1)),
      "max": float(self._max_S[slot]),
    }


class Search:
  """Follows the latents `latents_S`; slot s is `latents_S[s]`."""

  def __init__(self, dictionary: sae.Sae, place: Place, latents_S: np.ndarray):
    self._dictionary = on_mesh.place(dictionary, place.mesh)
    self._encode = on_mesh.encoder(place.mesh)
    self.place = place
    self._latents_S = latents_S
    self._slot_F = np.full(dictionary.latents, -1, np.int32)
    self._slot_F[latents_S] = np.arange(len(latents_S))

  def find(
    self, top: int, sample: int, seed: int
  ) -> tuple[best.Best, best.Best, Statistics]:
    """The `top` strongest hits (one per document), `sample` random ones."""
    at = self.place
    slots = len(self._latents_S)
    strongest = best.Best(slots, top, one_per_document=True)
    some = best.Best(slots, sample, one_per_document=False)
    statistics = Statistics(slots)
    for batch in scan.batches(
      at.source, at.hook, at.chunks, batch_rows=at.batch_rows, mesh=at.mesh
    ):
      row_N, slot_N, value_N = self.active(batch.x_BD, batch.rows)
      positions_R2 = at.source.positions(batch.start, batch.start + batch.rows)
      rows = batch.rows
      if at.keep is not None:
        keep_R = at.keep(positions_R2)
        rows = int(keep_R.sum())
        counts_N = keep_R[row_N]
        row_N, slot_N, value_N = (
          x_N[counts_N] for x_N in (row_N, slot_N, value_N)
        )
      hits = np.empty(len(row_N), best.HIT)
      hits["slot"], hits["value"] = slot_N, value_N
      hits["row"] = batch.start + row_N
      hits["document"], hits["position"] = positions_R2[row_N].T
      statistics.add(hits, rows)
      hits["key"] = value_N
      strongest.offer(hits)
      hits["key"] = best.lottery(hits["row"], self._latents_S[slot_N], seed)
      some.offer(hits)
    return strongest, some, statistics

  def read(self, keys_M: np.ndarray) -> dict[tuple[int, int], float]:
    """What the latents do at sorted `scan.key`s.

    Returns:
      (slot, key) -> activation where it fires, and (-1, key) -> 0 for every
      key that is a row.
    """
    at = self.place
    values: dict[tuple[int, int], float] = {}
    for found in scan.wanted(
      at.source,
      at.hook,
      at.chunks,
      keys_M,
      batch_rows=at.batch_rows,
      mesh=at.mesh,
    ):
      keys = found.keys_N.tolist()
      values.update(((-1, key), 0.0) for key in keys)
      for row, slot, value in zip(
        *self.active(found.x_BD, len(keys)), strict=True
      ):
        values[int(slot), keys[row]] = float(value)
    return values

  def active(
    self, x_BD: jax.Array, rows: int
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row of the batch, slot, activation) of every followed latent > 0.

    `x_BD` is split over `on_mesh.ROWS`; rows from `rows` on are padding.
    """
    values_BK, indices_BK = self._encode(self._dictionary, x_BD)
    values_RK = np.asarray(values_BK)[:rows]
    slot_RK = self._slot_F[np.asarray(indices_BK)[:rows]]
    row_N, k_N = np.nonzero((slot_RK >= 0) & (values_RK > 0))
    return row_N, slot_RK[row_N, k_N], values_RK[row_N, k_N]
