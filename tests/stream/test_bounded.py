# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A store of which only a window exists at a time, read once in order."""

import threading
import time
import types

import numpy as np
import pytest
from counting import CountingStore, config, row_numbers, take

from sae_jax import errors, mesh, stream


class WindowStore(CountingStore):
  """Write chunks (of 2 read chunks of 4 rows) exist once there is room."""

  def __init__(self, rows, window=4):
    super().__init__(rows)
    self.bounded, self.window = True, window
    self.manifest = types.SimpleNamespace(requested_rows=rows)
    self.released = 0

  def wait_chunks(self, hook, chunks, *, stop):
    for chunk in chunks:
      assert chunk // 2 >= self.released, "deleted"
      while chunk // 2 >= self.released + self.window and not stop.is_set():
        time.sleep(0.001)

  def release(self, first_chunk):
    assert first_chunk >= self.released
    self.released = first_chunk


def open_stream(store, how, **kwargs):
  return stream.open_stream(store, "h", how, mesh=mesh.single(), **kwargs)


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("rows", [16, 96, 100, 109])
def test_every_row_passes_once_while_a_window_is_on_disk(rows, lanes):
  store = WindowStore(rows)
  batches = open_stream(store, config(4, 2, lanes))
  seen = []
  for x_BD in batches:
    seen.append(row_numbers(x_BD))
    store.release(batches.releasable_chunk(batches.state()))
  seen = np.concatenate(seen)
  assert len(set(seen.tolist())) == len(seen)
  # Lost at the end: fewer chunks than lanes in the last block, and what a
  # lane has more than another, at most one chunk of 4 rows each.
  assert rows - len(seen) < 8 * lanes
  if lanes == 1:
    assert len(seen) == rows // 4 * 4
  assert next(batches, None) is None
  assert batches.releasable_chunk(batches.state()) >= (rows // 16) * 2 - 2
  batches.close()


def test_rows_stay_within_their_block():
  # Half of the window of 4 is 2 write chunks, 16 rows.
  store = WindowStore(96)
  store.window = 4
  batches = open_stream(store, config(4, 3))
  for block in range(6):
    rows = take(batches, 4)
    assert sorted(rows.reshape(-1)) == list(range(16 * block, 16 * block + 16))
    assert rows.reshape(-1).tolist() != sorted(rows.reshape(-1))
    store.release(batches.releasable_chunk(batches.state()))
  batches.close()


@pytest.mark.parametrize("lanes", [1, 2])
def test_what_is_released_is_never_asked_for_again(lanes):
  how = config(4, 2, lanes)
  store = WindowStore(96)
  batches = open_stream(store, how)
  expected, states = [], [batches.state()]
  for x_BD in batches:
    expected.append(row_numbers(x_BD))
    states.append(batches.state())
    store.release(batches.releasable_chunk(states[-1]))
  batches.close()
  for at in range(len(expected)):
    store = WindowStore(96)
    store.release(batches.releasable_chunk(states[at]))
    resumed = open_stream(store, how, start_state=states[at])
    assert (row_numbers(next(resumed)) == expected[at]).all()
    resumed.close()


def test_training_may_release_as_late_as_one_block_after_the_last_time():
  store = WindowStore(192)
  batches = open_stream(store, config(4))
  for _ in range(12):
    take(batches, 4)  # a block of 16 rows
    store.release(batches.releasable_chunk(batches.state()))
  batches.close()


def test_close_ends_a_wait_for_the_harvest():
  before = set(threading.enumerate())
  batches = open_stream(WindowStore(96), config(4))
  take(batches, 8)  # the window; the threads now wait for more
  batches.close()
  assert set(threading.enumerate()) <= before


def test_a_stream_that_does_not_fit_the_window_is_refused():
  with pytest.raises(errors.InputError, match=r"stream\.lanes=3 .* 4 read"):
    open_stream(WindowStore(96), config(9, lanes=3))
  with pytest.raises(errors.InputError, match="0 read chunks"):
    open_stream(WindowStore(96, window=1), config(4))
  with pytest.raises(errors.InputError, match="only be read whole"):
    open_stream(WindowStore(96), config(4), chunks=range(12))


def test_an_ordinary_store_has_nothing_to_release():
  batches = open_stream(CountingStore(96), config())
  take(batches, 5)
  assert batches.releasable_chunk(batches.state()) == 0
  batches.close()


def test_a_harvest_that_ends_early_does_not_change_the_order():
  store = WindowStore(96)
  batches = open_stream(store, config(4))
  expected = take(batches, 8)
  batches.close()
  batches = open_stream(store, config(4))
  take(batches, 3)
  state = batches.state()
  batches.close()
  ended = WindowStore(91)  # what a finished store's manifest then says
  ended.manifest.requested_rows = 96
  resumed = open_stream(ended, config(4), start_state=state)
  assert (take(resumed, 5) == expected[3:]).all()
  resumed.close()


def test_several_hooks_pass_by_together():
  store = WindowStore(96)
  batches = stream.open_stream(
    store, ("a", "b"), config(4, 2, lanes=2), mesh=mesh.single()
  )
  seen = []
  for a_BD, b_BD in batches:
    assert (row_numbers(a_BD) == row_numbers(b_BD)).all()
    seen += row_numbers(a_BD).tolist()
    store.release(batches.releasable_chunk(batches.state()))
  assert sorted(seen) == list(range(96))
  batches.close()
