# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Token sequences of a store's held-out chunks, and which positions it kept.

A context whose rows may reach into a training chunk is never chosen.
"""

import dataclasses

import numpy as np

from sae_jax import errors, store


@dataclasses.dataclass(frozen=True)
class Context:
  """One sequence as the LM was fed it."""

  document: int
  tokens_T: np.ndarray  # int32
  kept_T: np.ndarray  # bool: the position is a row of the store


def contexts(
  source: store.Store, chunks: range, count: int, seed: int
) -> list[Context]:
  """Draws up to `count` contexts without replacement, by document number.

  Within a lane, documents increase from write chunk to write chunk. So only
  the lowest document of a lane's first chunk can have rows before it, and only
  the highest of its last chunk rows after it; these are left out.

  Raises:
    errors.InputError: no whole context lies in these chunks, or they are not
      whole write chunks (rows are permuted within one).
  """
  _check(source, chunks)
  rows_R2, cut = _rows(source, chunks)
  documents_N = np.setdiff1d(rows_R2[:, 0], list(cut))
  if not len(documents_N):
    raise errors.InputError(
      f"read chunks {chunks.start}..{chunks.stop - 1} of {source.path} hold no"
      " whole context to measure the LM's loss on; hold out more rows, or"
      " harvest more text"
    )
  count = min(count, len(documents_N))
  rng = np.random.default_rng(seed)
  chosen_N = np.sort(rng.choice(documents_N, count, replace=False))
  rows_R2 = rows_R2[np.isin(rows_R2[:, 0], chosen_N)]
  rows_R2 = rows_R2[np.argsort(rows_R2[:, 0], kind="stable")]
  bounds = np.searchsorted(rows_R2[:, 0], chosen_N, side="right")
  drawn = []
  for document, positions in zip(
    chosen_N, np.split(rows_R2[:, 1], bounds[:-1]), strict=True
  ):
    tokens_T = np.asarray(source.document(int(document)), np.int32)
    kept_T = np.zeros(len(tokens_T), bool)
    kept_T[positions] = True
    drawn.append(Context(int(document), tokens_T, kept_T))
  return drawn


def _rows(source: store.Store, chunks: range) -> tuple[np.ndarray, set[int]]:
  """(document, position) of all rows; documents that may be incomplete."""
  first = chunks.start * source.read_rows
  last = min(chunks.stop * source.read_rows, source.rows)
  starts = range(first, last, source.write_rows)
  lanes = source.manifest.lanes
  parts, cut = [], set()
  for i, start in enumerate(starts):
    rows_R2 = source.positions(start, min(start + source.write_rows, last))
    parts.append(rows_R2)
    if i < lanes and first > 0:
      cut.add(int(rows_R2[:, 0].min()))
    if i >= len(starts) - lanes:
      cut.add(int(rows_R2[:, 0].max()))
  return np.concatenate(parts), cut


def _check(source: store.Store, chunks: range) -> None:
  per_write = source.write_rows // source.read_rows
  ends = (chunks.start, chunks.stop)
  if any(end % per_write and end != source.num_chunks for end in ends):
    raise errors.InputError(
      f"read chunks {chunks.start}..{chunks.stop - 1} of {source.path} are not"
      f" whole write chunks of {per_write}; take them from Store.holdout"
    )
