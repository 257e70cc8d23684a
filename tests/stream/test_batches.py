# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches on the mesh: every row once, resumable anywhere, no thread left."""

import hashlib
import json
import pathlib
import subprocess
import sys
import threading
import time

import jax
import ml_dtypes
import numpy as np
import pytest
from counting import CountingStore, config, row_numbers, take

from sae_jax import errors, mesh, stream
from sae_jax.stream import assemble


@pytest.fixture
def open_stream():
  """Opens streams on one device and closes them after the test."""
  opened = []

  def open_(store, config, *, on=None, **kwargs):
    on = mesh.single() if on is None else on
    opened.append(stream.open_stream(store, "h", config, mesh=on, **kwargs))
    return opened[-1]

  yield open_
  for each in opened:
    each.close()


@pytest.mark.parametrize("rows", [96, 101])
def test_every_epoch_has_every_row_once_in_a_new_order(open_stream, rows):
  rows_N = take(open_stream(CountingStore(rows), config()), rows).reshape(-1)
  epochs = rows_N.reshape(8, rows)
  assert (np.sort(epochs) == np.arange(rows)).all()
  assert len({tuple(epoch) for epoch in epochs.tolist()}) == 8


@pytest.mark.parametrize("lanes", [2, 4])
def test_lanes_share_every_epoch(open_stream, lanes):
  # 96 rows are 24 chunks: every lane is dealt 96 / lanes rows a round.
  batches = open_stream(CountingStore(96), config(lanes=lanes))
  for _ in range(3):
    assert (np.sort(take(batches, 12), axis=None) == np.arange(96)).all()


def test_uneven_lanes_read_each_row_equally_often(open_stream):
  rows_BN = take(open_stream(CountingStore(101), config(lanes=2)), 101)
  lane_rows = rows_BN.reshape(101, 2, 4).swapaxes(0, 1).reshape(2, -1)
  total = sum(np.bincount(rows, minlength=101) for rows in lane_rows)
  # 404 rows per lane are 4 rounds of two: 8 rounds that share 101 rows.
  assert (total == 8).all()


def test_only_the_chosen_chunks_are_read(open_stream):
  store = CountingStore(101)
  batches = open_stream(store, config(), chunks=range(3, 7))
  assert (np.sort(take(batches, 2), axis=None) == np.arange(12, 28)).all()
  batches.close()
  assert set(store.chunks_read) == {3, 4, 5, 6}


def test_a_batch_mixes_as_many_chunks_as_it_can(open_stream):
  batches = open_stream(CountingStore(400), config(20, mix_chunks=100))
  rows = take(batches, 1)[0]
  # 20 of 400 rows in 100 chunks: 18.4 different chunks on average,
  # variance < 1.5, so that fewer than 12 is five standard deviations off.
  assert len(set((rows // 4).tolist())) >= 12


@pytest.mark.parametrize("rows", [96, 101])
@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("mix_chunks", [1, 5, 100])
def test_resuming_anywhere_gives_the_same_batches(
  open_stream, rows, lanes, mix_chunks
):
  store, how = CountingStore(rows), config(8, mix_chunks, lanes)
  whole = open_stream(store, how)
  states = [whole.state()]
  expected = []
  for _ in range(30):  # two epochs and a part
    expected.append(row_numbers(next(whole)))
    states.append(json.loads(json.dumps(whole.state())))
  for at in range(0, 28):
    resumed = open_stream(store, how, start_state=states[at])
    assert resumed.state() == states[at]
    assert (take(resumed, 2) == expected[at : at + 2]).all(), at
    assert resumed.state() == states[at + 2]
    resumed.close()


@pytest.mark.parametrize(
  "sizes", [(1, 8, 1), (1, 1, 8), (2, 2, 2), (1, 2, 4), (1, 4, 1), (1, 1, 2)]
)
def test_order_and_position_do_not_depend_on_the_mesh(open_stream, sizes):
  store, how = CountingStore(101), config(16, lanes=4)
  whole = open_stream(store, how)
  expected = take(whole, 9)
  on = mesh.make(
    mesh.MeshConfig(sae=sizes[0], data=sizes[1], latent=sizes[2]),
    jax.devices()[: np.prod(sizes)],
  )
  elsewhere = open_stream(store, how, on=on)
  assert (take(elsewhere, 4) == expected[:4]).all()
  back = open_stream(store, how, start_state=elsewhere.state())
  assert (take(back, 5) == expected[4:]).all()


def test_batches_are_bf16_and_split_over_data(open_stream):
  on = mesh.make(mesh.MeshConfig(sae=2, data=2, latent=2))
  x_BD = next(open_stream(CountingStore(96), config(lanes=2), on=on))
  assert x_BD.dtype == jax.numpy.bfloat16 and x_BD.shape == (8, 2)
  wanted = jax.NamedSharding(on, jax.P("data", None))
  assert x_BD.sharding.is_equivalent_to(wanted, 2)
  for shard in x_BD.addressable_shards:
    assert (np.asarray(shard.data) == np.asarray(x_BD)[shard.index]).all()


@pytest.mark.parametrize(
  ("batch_size", "rows_of_a_device"), [(8, 1), (16, 2), (12, 6)]
)
def test_a_device_is_given_its_own_rows_where_they_divide(
  open_stream, monkeypatch, batch_size, rows_of_a_device
):
  on = mesh.make(mesh.MeshConfig(sae=2, data=2, latent=2))
  given = []
  spreader = assemble.spreader

  def noted(sharding):
    spread = spreader(sharding)
    return lambda x_BD: given.append(x_BD) or spread(x_BD)

  monkeypatch.setattr(assemble, "spreader", noted)
  x_BD = next(open_stream(CountingStore(96), config(batch_size), on=on))
  (came_BD,) = given
  parts = [shard.data for shard in came_BD.addressable_shards]
  assert {len(part) for part in parts} == {rows_of_a_device}
  assert (np.asarray(came_BD) == np.asarray(x_BD)).all()
  wanted = jax.NamedSharding(on, jax.P("data", None))
  assert x_BD.sharding.is_equivalent_to(wanted, 2)


def test_every_bit_pattern_survives(open_stream):
  class Bits(CountingStore):
    def chunk(self, chunk):
      bits = np.arange(256 * chunk, 256 * (chunk + 1), dtype=np.uint16)
      return bits.reshape(256, 1).view(ml_dtypes.bfloat16)

  batches = open_stream(Bits(2**16, read_rows=256), config(2**15, 8))
  got = [np.asarray(next(batches)).view(np.uint16) for _ in range(2)]
  assert (np.sort(np.concatenate(got), axis=None) == np.arange(2**16)).all()


def test_the_order_of_a_given_seed_is_settled(open_stream):
  """Checkpoints of older versions resume only while this holds.

  If the order has to change, raise `_VERSION` in stream/batches.py too.
  """
  rows = take(open_stream(CountingStore(1001), config(16, 8, 2, seed=3)), 200)
  digest = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
  assert digest[:16] == "7c1fe0ffeaaad197"


def test_the_seed_changes_the_order(open_stream):
  store = CountingStore(96)
  a, b = (take(open_stream(store, config(seed=s)), 12) for s in (0, 1))
  assert (np.sort(a, axis=None) == np.sort(b, axis=None)).all()
  assert (a != b).mean() > 0.9


def test_what_waits_in_buffers_is_not_in_the_state(open_stream):
  store = CountingStore(96)
  batches = open_stream(store, config(mix_chunks=1))
  next(batches)
  deadline = time.monotonic() + 10
  while len(store.chunks_read) < 7 and time.monotonic() < deadline:
    time.sleep(0.01)
  # Read ahead: 1 batch taken + 2 on the devices, of 2 chunks each.
  assert len(store.chunks_read) >= 7
  assert batches.state()["batches"] == 1


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"how": config(seed=1)}, "seed is 0 in the checkpoint, but 1 here"),
    ({"how": config(16)}, "batch_size is 8 in the checkpoint, but 16 here"),
    ({"how": config(mix_chunks=6)}, "mix_chunks is 5 .* 6 here"),
    ({"how": config(lanes=2)}, "lanes is 1 .* 2 here"),
    ({"store": CountingStore(104)}, r"chunks is \[0, 24\] .* \[0, 26\] here"),
    ({"store": CountingStore(95)}, "rows is 96 .* 95 here"),
    ({"store": CountingStore(96, 8)}, r"chunks is \[0, 24\]"),
    ({"chunks": range(20)}, r"chunks is \[0, 24\] .* \[0, 20\] here"),
    ({"state": {"version": 0}}, "version is 0 .* 1 here"),
    ({"state": {"store": "def"}}, "store is 'def' .* 'abc' here"),
    ({"state": {"batches": -1}}, "batches is -1"),
    ({"state": {"batches": "3"}}, "batches is '3'"),
  ],
)
def test_a_state_of_another_stream_is_refused(open_stream, change, named):
  batches = open_stream(CountingStore(96), config())
  state = {**batches.state(), **change.get("state", {})}
  with pytest.raises(errors.InputError, match=named):
    open_stream(
      change.get("store", CountingStore(96)),
      change.get("how", config()),
      chunks=change.get("chunks"),
      start_state=state,
    )


@pytest.mark.parametrize(
  ("how", "kwargs", "named"),
  [
    (config(lanes=8, batch_size=32), {"chunks": range(7)}, r"lanes=8.* 7 read"),
    (config(), {"chunks": range(0)}, r"chunks=range\(0, 0\)"),
    (config(), {"chunks": range(20, 25)}, "24 "),
    (config(), {"chunks": range(0, 24, 2)}, "consecutive"),
  ],
)
def test_a_stream_that_does_not_fit_the_store_is_refused(
  open_stream, how, kwargs, named
):
  with pytest.raises(errors.InputError, match=named):
    open_stream(CountingStore(96), how, **kwargs)


def test_a_batch_that_does_not_fit_the_mesh_is_refused(open_stream):
  on = mesh.make(mesh.MeshConfig(data=8))
  with pytest.raises(errors.InputError, match=r"batch_size=12 .* mesh\.data=8"):
    open_stream(CountingStore(96), config(12), on=on)


class BrokenChunkError(Exception):
  pass


def test_a_reader_error_comes_out_as_it_is_and_ends_the_stream(open_stream):
  broken = BrokenChunkError("store /s, hook h, chunk 5: checksum mismatch")

  class Broken(CountingStore):
    def chunk(self, chunk):
      if chunk == 5:
        raise broken
      return super().chunk(chunk)

  batches = open_stream(Broken(96), config(mix_chunks=1))
  seen = []
  with pytest.raises(BrokenChunkError) as raised:
    for _ in range(13):
      seen.append(row_numbers(next(batches)))
  assert raised.value is broken
  assert batches.state()["batches"] == len(seen) < 12
  with pytest.raises(RuntimeError, match="open one from its last state"):
    next(batches)
  # Repaired, the run goes on with the very batch that failed.
  whole = take(open_stream(CountingStore(96), config(mix_chunks=1)), 12)
  again = open_stream(
    CountingStore(96), config(mix_chunks=1), start_state=batches.state()
  )
  assert (take(again, 12 - len(seen)) == whole[len(seen) :]).all()


@pytest.mark.parametrize("taken", [0, 1, 7])
@pytest.mark.parametrize("lanes", [1, 4])
def test_no_thread_is_left_after_close(open_stream, taken, lanes):
  before = set(threading.enumerate())
  batches = open_stream(CountingStore(96), config(lanes=lanes, mix_chunks=1))
  for _ in range(taken):
    next(batches)
  if taken:
    assert set(threading.enumerate()) > before
  batches.close()
  batches.close()
  assert set(threading.enumerate()) <= before
  with pytest.raises(RuntimeError, match="closed"):
    next(batches)


def test_a_forgotten_stream_stops_its_threads():
  before = set(threading.enumerate())
  batches = stream.open_stream(
    CountingStore(96), "h", config(), mesh=mesh.single()
  )
  next(batches)
  del batches
  assert set(threading.enumerate()) <= before


def test_stall_is_the_time_that_next_waited(open_stream):
  class Slow(CountingStore):
    def read_chunks(self, hook, chunk_ids):
      time.sleep(0.1)
      return super().read_chunks(hook, chunk_ids)

  # A draw is one batch: nothing can be ready within the first 100 ms.
  batches = open_stream(Slow(400), config(8, mix_chunks=2))
  assert batches.stall_ms() == 0
  next(batches)
  assert batches.stall_ms() >= 100
  time.sleep(0.5)
  next(batches)
  assert batches.stall_ms() < 100


def test_taking_a_batch_transfers_nothing_in_the_training_thread(open_stream):
  batches = open_stream(CountingStore(96), config())
  with jax.transfer_guard("disallow_explicit"):
    next(batches)


def test_a_plain_script_needs_neither_absl_flags_nor_close():
  """grain defines absl flags; a daemon thread in XLA at exit would abort."""
  program = """
import sys
sys.path.insert(0, sys.argv[1])
from absl import flags
import counting
from sae_jax import mesh, stream
s = stream.open_stream(
  counting.CountingStore(96), "h", counting.config(), mesh=mesh.single()
)
counting.take(s, 12)
assert not flags.FLAGS.is_parsed()
"""
  done = subprocess.run(
    [sys.executable, "-c", program, str(pathlib.Path(__file__).parent)],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert (done.returncode, done.stderr) == (0, "")
