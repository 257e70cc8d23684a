# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Harvests as real processes: killed, in parallel, with a reader behind."""

import contextlib
import os
import pathlib
import random
import time

import fake_harvest
import numpy as np
import pytest

from sae_jax import errors, mesh, store, stream
from sae_jax.store import draining, verify

HOOK = "blocks.0.hook_resid_post"


def tree(path):
  return {
    str(p.relative_to(path)): p.read_bytes()
    for p in path.rglob("*")
    if p.is_file()
  }


@pytest.fixture
def start(forge):
  """Starts harvests; those still running are killed after the test."""
  running = []

  def start_(*args, **kwargs):
    running.append(fake_harvest.start(forge, *args, **kwargs))
    return running[-1]

  yield start_
  for process in running:
    process.kill()


def wait_for(condition, process, seconds=60.0):
  deadline = time.monotonic() + seconds
  while not condition():
    assert process.poll() in (None, 0), process.said
    assert time.monotonic() < deadline
    time.sleep(0.002)


def records(path):
  return len(list(path.glob("progress/chunk-*.npz")))


def kill_and_compare(start, path, whole, points, rng, **run):
  """Kills a little after each number of records, then finishes.

  Returns:
    How many kills met a harvest that was under way.
  """
  killed = 0
  for point in points:
    process = start(path, **run)
    wait_for(
      lambda p=point: records(path) >= p or (path / "manifest.json").exists(),
      process,
    )
    time.sleep(rng.uniform(0, 0.04))
    killed += process.poll() is None
    process.kill()
  process = start(path, **run)
  assert process.wait() == 0, process.said
  assert tree(path) == whole
  assert verify.verify(path) == []
  return killed


RUN = {"how": {"delay": 0.005}, "rows": 900, "write_rows": 32}


def test_killed_three_times_the_bytes_are_the_same(start, tmp_path):
  fake_harvest.run(tmp_path / "whole", rows=900, write_rows=32)
  whole = tree(tmp_path / "whole")
  rng = random.Random(0)
  points = [0, 4, 15]
  assert kill_and_compare(start, tmp_path / "s", whole, points, rng, **RUN) == 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments(start, tmp_path, seed):
  """24 kills in all, over two lanes, a ragged end and several hooks."""
  fields = {"rows": 3000, "write_rows": 32, "lanes": 2}
  fake_harvest.run(tmp_path / "whole", {"batches": 61}, **fields)
  whole = tree(tmp_path / "whole")
  rng = random.Random(seed)
  points = sorted(rng.randrange(0, 26) for _ in range(6))
  run = {"how": {"delay": 0.005, "batches": 61}, **fields}
  assert kill_and_compare(start, tmp_path / "s", whole, points, rng, **run) >= 5


def test_killed_while_finishing(tmp_path, monkeypatch):
  """After each single file operation of the end."""
  fake_harvest.run(tmp_path / "whole", {"batches": 20}, lanes=2)
  whole = tree(tmp_path / "whole")
  location = fake_harvest.store.writer.location.Location
  plain = {name: getattr(location, name) for name in ("write", "delete")}

  class KilledError(BaseException):
    pass

  survived = 0
  for stop_at in range(40):
    path = tmp_path / f"s{stop_at}"
    left = iter(range(stop_at))

    def counted(name):
      def call(self, what, *args):
        if name == "write" and what.startswith("progress/"):
          return plain[name](self, what, *args)
        if next(left, None) is None:  # noqa: B023
          raise KilledError
        return plain[name](self, what, *args)

      return call

    for name in plain:
      monkeypatch.setattr(location, name, counted(name))
    try:
      fake_harvest.run(path, {"batches": 20}, lanes=2)
      survived += 1
    except KilledError:
      pass
    monkeypatch.undo()
    fake_harvest.run(path, {"batches": 20}, lanes=2)
    assert tree(path) == whole, stop_at
    if survived:
      break
  assert survived and stop_at > 5


@pytest.mark.parametrize("batches", [10**6, 41])
def test_two_processes_write_what_one_does(start, tmp_path, batches):
  fields = {"rows": 700, "write_rows": 32, "lanes": 2}
  fake_harvest.run(tmp_path / "one", {"batches": batches}, **fields)
  how = {"batches": batches, "processes": 2}
  both = [
    start(tmp_path / "two", {**how, "process": n, "delay": 0.003 * n}, **fields)
    for n in range(2)
  ]
  for process in both:
    assert process.wait() == 0, process.said
  assert tree(tmp_path / "two") == tree(tmp_path / "one")


@pytest.mark.slow
def test_two_processes_are_killed_and_started_again(start, tmp_path):
  path, rng = tmp_path / "two", random.Random(0)
  fields = {"rows": 1500, "write_rows": 32, "lanes": 3}
  fake_harvest.run(tmp_path / "one", {"batches": 90}, **fields)

  def both():
    how = {"batches": 90, "processes": 2, "delay": 0.01}
    return [start(path, {**how, "process": n}, **fields) for n in range(2)]

  for point in (0, 3, 8, 14, 20):
    processes = both()
    wait_for(lambda p=point: records(path) >= p, processes[0])
    time.sleep(rng.uniform(0, 0.1))
    assert None in [process.poll() for process in processes]
    for process in rng.sample(processes, 2):
      time.sleep(rng.uniform(0, 0.05))
      process.kill()
  for process in both():
    assert process.wait() == 0, process.said
  assert tree(path) == tree(tmp_path / "one")


def test_a_dead_process_is_noticed_by_the_others(start, tmp_path):
  fields = {"rows": 700, "write_rows": 32, "lanes": 2}
  how = {"processes": 2, "stall_seconds": 5}
  lead = start(tmp_path / "s", {**how, "process": 0}, **fields)
  other = start(tmp_path / "s", {**how, "process": 1, "delay": 0.2}, **fields)
  wait_for(lambda: records(tmp_path / "s") > 2, other)
  other.kill()
  assert lead.wait(30) != 0
  assert "lane 1 to end" in (message := lead.said)
  assert "process 1 of the harvest gives no sign of life" in message


def size(path):
  total = 0
  for directory, _, names in os.walk(path / "activations"):
    for name in set(names) - {"zarr.json"}:
      with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
        total += os.path.getsize(os.path.join(directory, name))
  return total


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_reader_drains_a_bounded_store(start, tmp_path, lanes):
  path = tmp_path / "s"
  fields = {"rows": 700, "write_rows": 32, "lanes": lanes}
  whole = fake_harvest.run(tmp_path / "whole", **fields)
  process = start(path, window=4, **fields)
  wait_for((path / "progress/start.json").exists, process)
  source = store.open_store(path)
  assert source.bounded and source.window == 4 and source.rows == 700
  with pytest.raises(errors.InputError, match="statistics come last"):
    source.stats(HOOK)
  width = sum(fake_harvest.HOOKS.values())
  # Four whole chunks: data and per read chunk a crc32c and 16 bytes of index.
  limit = 4 * (32 * width * 2 + 2 * (4 * 20 + 4))
  wait_for(lambda: records(path) == 4, process)
  time.sleep(0.5)
  assert size(path) == limit  # full, and it waits
  largest = 0
  for chunk in range(source.num_chunks):
    source.wait_chunks(HOOK, [chunk])
    (x_RD,) = source.read_chunks(HOOK, [chunk])
    np.testing.assert_array_equal(x_RD, whole.read_chunks(HOOK, [chunk])[0])
    start_ = chunk * source.read_rows
    row_R2 = source.positions(start_, start_ + 1)
    np.testing.assert_array_equal(row_R2, whole.positions(start_, start_ + 1))
    source.document(row_R2[0, 0])
    largest = max(largest, size(path))
    if chunk % 4 == 3:
      source.release((chunk + 1) // 4)
      largest = max(largest, size(path))
  assert process.wait() == 0, process.said
  # Files are counted one after the other: one may be deleted and the next be
  # written in between.
  assert largest <= limit * 5 // 4
  finished = store.open_store(path)
  assert finished.manifest.pairing_hash == whole.manifest.pairing_hash
  assert finished.identity == source.identity
  np.testing.assert_array_equal(
    finished.stats(HOOK).mean_D, whole.stats(HOOK).mean_D
  )
  assert verify.verify(path) == []
  with pytest.raises(errors.InputError, match="released by an earlier reader"):
    finished.wait_chunks(HOOK, [0])


def test_a_stream_drains_a_bounded_store(start, tmp_path):
  path = tmp_path / "s"
  fields = {"rows": 640, "write_rows": 32}
  whole = fake_harvest.run(tmp_path / "whole", **fields)
  process = start(path, window=4, **fields)
  wait_for((path / "progress/start.json").exists, process)
  source = store.open_store(path)
  batches = stream.open_stream(
    source,
    HOOK,
    stream.StreamConfig(batch_size=20, mix_chunks=2),
    mesh=mesh.single(),
  )
  got = []
  for x_BD in batches:
    got.append(np.asarray(x_BD))
    source.release(batches.releasable_chunk(batches.state()))
  batches.close()
  assert process.wait() == 0, process.said
  ours, theirs = np.concatenate(got), whole.read(HOOK, 0, 640)
  assert len(ours) == 640
  order = [np.lexsort(x.astype(float).T) for x in (ours, theirs)]
  np.testing.assert_array_equal(ours[order[0]], theirs[order[1]])


def test_a_bounded_harvest_is_killed_and_goes_on(start, tmp_path):
  path = tmp_path / "s"
  fields = {"rows": 700, "write_rows": 32}
  whole = fake_harvest.run(tmp_path / "whole", **fields)
  fields["window"] = 3
  process = start(path, **fields)
  wait_for((path / "progress/start.json").exists, process)
  source = store.open_store(path)
  for chunk in range(22):
    if chunk in (1, 9, 20):
      process.kill()
      process = start(path, **fields)
    ids = [4 * chunk, min(4 * chunk + 3, source.num_chunks - 1)]
    source.wait_chunks(HOOK, ids)
    for mine, theirs in zip(
      source.read_chunks(HOOK, ids), whole.read_chunks(HOOK, ids), strict=True
    ):
      np.testing.assert_array_equal(mine, theirs)
    source.release(chunk + 1)
  assert process.wait() == 0, process.said
  assert verify.verify(path) == []


def test_a_lane_goes_on_when_all_it_wrote_is_released(start, tmp_path):
  path = tmp_path / "s"
  fields = {"rows": 200, "write_rows": 32}
  whole = fake_harvest.run(tmp_path / "whole", **fields)
  fields["window"] = 2
  process = start(path, **fields)
  wait_for(lambda: records(path) == 2, process)
  process.kill()
  source = store.open_store(path)
  source.release(2)
  draining.delete_released(source.place, source.manifest, 0, 2)
  assert size(path) == 0
  assert (path / "progress/chunk-000000001.npz").exists()  # to go on from
  process = start(path, **fields)
  for chunk in range(8, source.num_chunks):
    source.wait_chunks(HOOK, [chunk])
    np.testing.assert_array_equal(
      source.read_chunks(HOOK, [chunk])[0], whole.read_chunks(HOOK, [chunk])[0]
    )
    source.release(chunk // 4)
  assert process.wait() == 0, process.said


def test_a_dead_harvest_is_noticed_by_the_reader(start, tmp_path):
  path = tmp_path / "s"
  process = start(path, rows=700, write_rows=32, window=2)
  wait_for(lambda: records(path) == 2, process)
  process.kill()
  source = store.open_store(path)
  source.wait_chunks(HOOK, [7])
  before = time.monotonic()
  with pytest.raises(errors.InputError) as caught:
    source.wait_chunks(HOOK, [8], stall_seconds=3)
  assert time.monotonic() - before < 10
  for part in (str(path), "write chunk 2", HOOK, "process 0", "harvest again"):
    assert part in str(caught.value)


def test_text_that_ends_is_not_waited_for(start, tmp_path):
  path = tmp_path / "s"
  process = start(path, {"batches": 5}, rows=700, write_rows=32, window=6)
  wait_for((path / "progress/start.json").exists, process)
  source = store.open_store(path)
  with pytest.raises(errors.InputError, match=r"ended after \d+ of the 700"):
    source.wait_chunks(HOOK, [80])
  assert pathlib.Path(source.path) == path
