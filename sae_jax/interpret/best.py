# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The best few hits of each latent in a stream of hits, in bounded memory.

With the activation as key it keeps the strongest; with a hash of the row as
key it keeps a uniform sample. Equal keys: the lower row wins.
"""

import numpy as np

# A hit: one latent active on one row.
HIT = np.dtype(
  [
    ("slot", np.int32),  # which of the followed latents
    ("key", np.float64),
    ("value", np.float32),  # activation
    ("row", np.int64),
    ("document", np.int32),
    ("position", np.int32),
  ]
)


class Best:
  """Keeps, per slot, the `n` hits of largest key."""

  def __init__(self, slots: int, n: int, *, one_per_document: bool):
    self._slots = slots
    self._n = n
    self._one_per_document = one_per_document
    self._hits = np.empty(0, HIT)
    self._least_S = np.full(slots, -np.inf)  # no smaller key can enter

  def offer(self, hits: np.ndarray) -> None:
    """Takes in hits of rows above all rows offered before."""
    hits = hits[hits["key"] > self._least_S[hits["slot"]]]
    if not len(hits):
      return
    hits = np.concatenate([self._hits, hits])
    hits = hits[np.lexsort((hits["row"], -hits["key"], hits["slot"]))]
    if self._one_per_document:
      pair = np.int64(hits["slot"]) << 32 | np.int64(hits["document"])
      _, first = np.unique(pair, return_index=True)
      hits = hits[np.sort(first)]
    start_S = np.searchsorted(hits["slot"], np.arange(self._slots))
    rank = np.arange(len(hits)) - start_S[hits["slot"]]
    last = hits[rank == self._n - 1]
    self._least_S[last["slot"]] = last["key"]
    self._hits = hits[rank < self._n]

  def of(self, slot: int) -> np.ndarray:
    """The hits kept for a slot, largest key first."""
    return self._hits[self._hits["slot"] == slot]


def lottery(rows: np.ndarray, latents: np.ndarray, seed: int) -> np.ndarray:
  """A number in [0, 1) per (row, latent), the same on every run.

  The finaliser of splitmix64 (Steele, Lea & Flood 2014) over a mix of both.
  """
  with np.errstate(over="ignore"):
    z = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z += latents.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
    z += np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
  return (z >> np.uint64(11)).astype(np.float64) / 2**53
