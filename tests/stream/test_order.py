# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The data order: pure arithmetic."""

import numpy as np
import pytest

from sae_jax import errors
from sae_jax.stream import order


def make_plan(rows, lanes, mix=3, read_rows=4, block=None, batch=None):
  config = order.StreamConfig(
    batch_size=batch or lanes, mix_chunks=mix, lanes=lanes, seed=7
  )
  chunks = range(-(-rows // read_rows))
  return order.Plan(config, chunks, read_rows, rows, block)


def walk(plan, lane, rounds):
  """Every (round, draw, row in the draw) of a lane, by brute force."""
  for round_ in range(rounds):
    ids = plan.lane_chunks(lane, round_)
    draws = plan.draws(round_)
    for draw in range(draws):
      mine = ids[draw * len(ids) // draws : (draw + 1) * len(ids) // draws]
      rows = sum(plan.chunk_rows(range(c, c + 1)) for c in mine.tolist())
      for row in range(rows):
        yield round_, draw, row


@pytest.mark.parametrize("lanes", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [20, 21, 24, 47, 63, 64])
@pytest.mark.parametrize("mix", [1, 2, 3, 64])
def test_a_position_is_where_walking_gets_to(lanes, rows, mix):
  plan = make_plan(rows, lanes, mix)
  for lane in range(lanes):
    walked = list(walk(plan, lane, rounds=2 * lanes + 1))
    # Batches of one row per lane visit every row.
    located = [plan.locate(lane, n) for n in range(len(walked))]
    assert located == walked


# `open_stream` trims a last block with fewer chunks than lanes.
@pytest.mark.parametrize(
  ("rows", "lanes"),
  [(r, v) for r in (16, 47, 48, 96) for v in (1, 2, 4)]
  + [(49, 1), (55, 2), (63, 4), (100, 1)],
)
def test_a_position_in_a_bounded_store_is_where_walking_gets_to(lanes, rows):
  plan = make_plan(rows, lanes, mix=2, block=4)
  for lane in range(lanes):
    walked = list(walk(plan, lane, plan.rounds))
    located = [plan.locate(lane, n) for n in range(len(walked))]
    assert located == walked
    assert plan.locate(lane, len(walked)) == (plan.rounds, 0, 0)


@pytest.mark.parametrize("lanes", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [20, 22, 61])
def test_every_round_deals_every_chunk_once(lanes, rows):
  plan = make_plan(rows, lanes)
  for round_ in range(4):
    dealt = [plan.lane_chunks(lane, round_) for lane in range(lanes)]
    assert sorted(np.concatenate(dealt).tolist()) == list(plan.chunks)
    for lane, ids in enumerate(dealt):
      assert len(ids) == plan.lane_count(lane, round_)
      rows_dealt = sum(plan.chunk_rows(range(c, c + 1)) for c in ids.tolist())
      assert rows_dealt == plan.lane_rows(lane, round_)


@pytest.mark.parametrize("lanes", [2, 3, 5])
def test_in_as_many_rounds_as_lanes_every_lane_gets_as_many_rows(lanes):
  plan = make_plan(61, lanes)
  for lane in range(lanes):
    assert sum(plan.lane_rows(lane, r) for r in range(lanes)) == 61


def test_draws_are_of_even_size_and_never_empty():
  for chunks in range(1, 40):
    for lanes in range(1, min(chunks, 5) + 1):
      for mix in (1, 2, 3, 7):
        plan = make_plan(4 * chunks, lanes, mix)
        for lane in range(lanes):
          n, draws = plan.lane_count(lane, 0), plan.draws(0)
          sizes = np.diff([d * n // draws for d in range(draws + 1)])
          assert sizes.min() >= 1
          assert sizes.max() - sizes.min() <= 1
          assert sizes.max() <= mix + 1


def test_a_position_after_many_epochs_is_found_at_once():
  plan = make_plan(61, 3)
  epochs = 10**12
  assert plan.locate(1, 61 * epochs) == (3 * epochs, 0, 0)


def test_permutations_are_uniform_and_independent_of_each_other():
  # Each of 6 orders has probability 1/6; 6 standard deviations of a count.
  n = 3000
  counts = {}
  for i in range(n):
    p = tuple(order.permutation(3, (0, 1), (i, 0, 0)).tolist())
    counts[p] = counts.get(p, 0) + 1
  assert len(counts) == 6
  bound = 6 * (n * (1 / 6) * (5 / 6)) ** 0.5
  assert all(abs(count - n / 6) < bound for count in counts.values())
  keys = [((0, 0), (0, 0, 0)), ((1, 0), (0, 0, 0)), ((0, 1), (0, 0, 0))]
  keys += [((0, 0), c) for c in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]]
  orders = {tuple(order.permutation(50, *key).tolist()) for key in keys}
  assert len(orders) == len(keys)


@pytest.mark.parametrize("n", [0, 1, 2, 255, 256, 257])
def test_a_permutation_has_every_index_once(n):
  idx_N = order.permutation(n, (1, 2), (3, 4, 5))
  assert sorted(idx_N.tolist()) == list(range(n))


def test_a_process_reads_the_lanes_of_its_rows():
  halves = {0: [(0, 8), (0, 8)], 1: [(8, 16), (8, 16)]}
  assert order.lanes_by_process(halves, 16, 2) == {0: (0,), 1: (1,)}
  assert order.lanes_by_process(halves, 16, 4) == {0: (0, 1), 1: (2, 3)}
  assert order.lanes_by_process(halves, 16, 16)[1] == tuple(range(8, 16))


def test_a_process_may_hold_rows_that_are_apart():
  apart = {0: [(0, 4), (8, 12)], 1: [(4, 8), (12, 16)]}
  assert order.lanes_by_process(apart, 16, 4) == {0: (0, 2), 1: (1, 3)}
  with pytest.raises(errors.InputError, match=r"stream\.lanes=2 "):
    order.lanes_by_process(apart, 16, 2)


def test_processes_that_share_rows_all_read_them():
  replicas = {0: [(0, 16)], 1: [(0, 16)]}
  assert order.lanes_by_process(replicas, 16, 1) == {0: (0,), 1: (0,)}


def test_a_split_lane_is_refused_by_every_process():
  quarters = {p: [(4 * p, 4 * p + 4)] for p in range(4)}
  for lanes in (1, 2):
    with pytest.raises(
      errors.InputError, match=rf"stream\.lanes={lanes} .* 4 processes"
    ):
      order.lanes_by_process(quarters, 16, lanes)
  assert order.lanes_by_process(quarters, 16, 4)[3] == (3,)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(batch_size=0), r"stream\.batch_size=0"),
    (dict(batch_size=8, mix_chunks=0), r"stream\.mix_chunks=0"),
    (dict(batch_size=8, lanes=-1), r"stream\.lanes=-1"),
    (dict(batch_size=8, lanes=3), r"batch_size=8 .* stream\.lanes=3"),
    (dict(batch_size=8, seed=-1), r"stream\.seed=-1"),
    (dict(batch_size=8, seed=2**64), r"stream\.seed="),
  ],
)
def test_a_config_that_cannot_be_is_refused(fields, message):
  with pytest.raises(errors.InputError, match=message):
    order.StreamConfig(**fields)
