# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The best of a stream are the best of the whole."""

import numpy as np
import pytest

from sae_jax.interpret import best


def make_hits(n, slots, documents, seed=0):
  rng = np.random.default_rng(seed)
  hits = np.empty(n, best.HIT)
  hits["slot"] = rng.integers(0, slots, n)
  hits["key"] = rng.integers(0, 40, n)  # many ties
  hits["value"] = hits["key"]
  hits["row"] = np.arange(n)
  hits["document"] = np.sort(rng.integers(0, documents, n))
  hits["position"] = 0
  return hits


@pytest.mark.parametrize("one_per_document", [True, False])
@pytest.mark.parametrize("portion", [1, 7, 1000])
def test_a_stream_ends_as_a_sort_of_everything(portion, one_per_document):
  hits = make_hits(500, 4, 9)  # few documents: most of the best share one
  kept = best.Best(4, 5, one_per_document=one_per_document)
  for start in range(0, len(hits), portion):
    kept.offer(hits[start : start + portion])
  for slot in range(4):
    wanted, seen = [], set()
    own = hits[hits["slot"] == slot]
    for hit in own[np.lexsort((own["row"], -own["key"]))]:
      if not (one_per_document and int(hit["document"]) in seen):
        seen.add(int(hit["document"]))
        wanted.append(int(hit["row"]))
    assert kept.of(slot)["row"].tolist() == wanted[:5]


def test_the_lottery_is_fair_and_repeatable():
  rows = np.arange(100_000)
  ticket = best.lottery(rows, np.full(len(rows), 3), seed=1)
  assert ((ticket >= 0) & (ticket < 1)).all()
  counts, _ = np.histogram(ticket, 20, range=(0, 1))
  # A bin holds 5,000 ± 69; five deviations.
  assert np.abs(counts - 5000).max() < 5 * 69
  np.testing.assert_array_equal(
    ticket[500:600], best.lottery(rows[500:600], np.full(100, 3), seed=1)
  )
  other = best.lottery(rows, np.full(len(rows), 4), seed=1)
  assert abs(np.corrcoef(ticket, other)[0, 1]) < 5 / np.sqrt(len(rows))
