# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Held-out contexts are whole, and never touch a training chunk."""

import numpy as np
import pytest
from evaluation_data import make_store

from sae_jax import errors
from sae_jax.evaluate import heldout

DOCUMENTS, LENGTH = 20, 12


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """220 rows, in write chunks of 64: documents straddle their borders."""
  rng = np.random.default_rng(0)
  documents = [rng.integers(0, 99, LENGTH) for _ in range(DOCUMENTS)]
  rows_N2 = np.array(
    [(d, t) for d in range(DOCUMENTS) for t in range(LENGTH) if t != d % 5],
    np.int32,
  )
  x_ND = rng.normal(size=(len(rows_N2), 4))
  path = tmp_path_factory.mktemp("s") / "store"
  return make_store(path, documents, x_ND, rows_N2)


def test_no_context_reaches_into_training(source):
  train, held = source.holdout(100)
  last = train.stop * source.read_rows
  trained = set(source.positions(0, last)[:, 0].tolist())
  there = set(source.positions(last, source.rows)[:, 0].tolist())
  assert trained & there, "the store has no document to be careful about"
  drawn = {c.document for c in heldout.contexts(source, held, 99, seed=0)}
  assert drawn and drawn <= there - trained


def test_kept_positions_are_the_rows_of_the_store(source):
  drawn = heldout.contexts(source, range(source.num_chunks), 99, seed=0)
  # All but the last, which the end of the store may have cut.
  assert [c.document for c in drawn] == list(range(DOCUMENTS - 1))
  for context in drawn:
    np.testing.assert_array_equal(
      context.tokens_T, source.document(context.document)
    )
    kept_T = np.arange(LENGTH) != context.document % 5
    np.testing.assert_array_equal(context.kept_T, kept_T)


def test_the_draw_is_seeded_and_without_replacement(source):
  chunks = range(source.num_chunks)
  draws = [
    [c.document for c in heldout.contexts(source, chunks, 5, seed=seed)]
    for seed in (0, 0, 1)
  ]
  assert draws[0] == draws[1] != draws[2]
  assert len(set(draws[0])) == 5


def test_chunks_inside_a_write_chunk_are_refused(source):
  with pytest.raises(errors.InputError, match="whole write chunks"):
    heldout.contexts(source, range(2, 6), 5, seed=0)


def test_no_whole_context_is_said(tmp_path):
  documents = [np.arange(40), np.arange(40)]
  source = make_store(
    tmp_path / "s", documents, np.ones((80, 4)), read_rows=8, write_rows=16
  )
  with pytest.raises(errors.InputError, match="no whole context"):
    heldout.contexts(source, range(8, 10), 5, seed=0)
