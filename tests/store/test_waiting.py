# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A read that hangs is spoken of; a reader that dies says which chunk."""

import contextlib
import os
import threading
import time

import numpy as np
import pytest

from sae_jax import errors, mesh, store, stream
from sae_jax.store import draining, location, waiting

HOOK = "blocks.3.hook_resid_post"


@pytest.fixture
def source(tmp_path):
  x_ND = np.arange(128, dtype=np.float32).reshape(64, 2)
  store.write_arrays(tmp_path / "s", {HOOK: x_ND}, read_rows=8, write_rows=16)
  return store.open_store(tmp_path / "s")


@contextlib.contextmanager
def _hung(source, chunk):
  """A write chunk hangs until what is yielded is set; then it is damaged."""
  file = source.place.directory / "activations" / HOOK / "c" / str(chunk) / "0"
  file.unlink()
  os.mkfifo(file)  # a pipe opens when somebody opens its other end
  release, done = threading.Event(), threading.Event()

  def let_go():
    release.wait()
    while not done.wait(0.002):
      with contextlib.suppress(OSError):  # nobody reads just now
        os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))

  thread = threading.Thread(target=let_go)
  thread.start()
  try:
    yield release
  finally:
    release.set()
    done.set()
    thread.join()


def test_a_read_that_hangs_is_named_on_stderr_until_it_ends(
  source, monkeypatch, capsys
):
  monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.02)
  found = []

  def read():
    try:
      source.read_chunks(HOOK, [1, 5])
    except errors.InputError as error:
      found.append(str(error))

  thread = threading.Thread(target=read)
  lines = []
  with _hung(source, 2) as release:
    thread.start()
    while len(lines) < 3:
      time.sleep(0.01)
      lines += capsys.readouterr().err.splitlines()
    assert thread.is_alive() and not found
    release.set()
    thread.join()
  named = f"{source.path}: activations/{HOOK}: read chunk 5 (rows 40..47"
  assert all(named in line and "is not read yet" in line for line in lines)
  assert lines[0].startswith("waiting for ")
  assert named in found[0]


def test_a_reader_that_hangs_or_dies_is_named_in_training(
  source, monkeypatch, capsys
):
  """The reading thread is not the training thread."""
  monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.02)
  config = stream.StreamConfig(batch_size=8, mix_chunks=1)
  said = [""]

  def die_once_said(release):
    while "waiting for" not in said[0]:
      time.sleep(0.01)
      said[0] += capsys.readouterr().err
    release.set()

  with _hung(source, 2) as release:
    batches = stream.open_stream(source, HOOK, config, mesh=mesh.single())
    threading.Thread(target=die_once_said, args=(release,)).start()
    with pytest.raises(errors.InputError) as raised:
      for _ in range(8):
        next(batches)
    batches.close()
  for text in (str(raised.value), said[0]):
    assert str(source.path) in text and f"{HOOK}: read chunk" in text


def test_waiting_for_a_harvest_is_spoken_of(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.02)
  place = location.Location(tmp_path)
  lines = []

  def ready():
    lines.extend(capsys.readouterr().err.splitlines())
    return len(lines) > 1

  draining.until(ready, place, f"write chunk 7 of {HOOK}")
  for line in lines:
    assert line.startswith("waiting for ")
    assert line.endswith(f": {tmp_path}: write chunk 7 of {HOOK}")
