# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A read that hangs is spoken of; a reader that dies says which chunk."""

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


def _hang(source, chunk):
  """Turns a write chunk into a pipe, which opens when somebody writes."""
  file = source.place.directory / "activations" / HOOK / "c" / str(chunk) / "0"
  file.unlink()
  os.mkfifo(file)
  return file


def _let_go(file):
  os.close(os.open(file, os.O_WRONLY))


def test_a_read_that_hangs_is_named_on_stderr_until_it_ends(
  source, monkeypatch, capsys
):
  monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.02)
  file = _hang(source, 2)
  found = []

  def read():
    try:
      source.read_chunks(HOOK, [1, 5])
    except errors.InputError as error:
      found.append(str(error))

  thread = threading.Thread(target=read)
  thread.start()
  lines = []
  while len(lines) < 3:
    time.sleep(0.01)
    lines += capsys.readouterr().err.splitlines()
  assert thread.is_alive() and not found
  _let_go(file)
  _let_go(file)  # the second look, for the name of the damaged chunk
  thread.join()
  named = f"{source.path}: activations/{HOOK}: read chunk 5 (rows 40..47"
  assert all(named in line and "is not read yet" in line for line in lines)
  assert lines[0].startswith("waiting for 0 s: ")
  assert named in found[0]


def test_a_reader_that_hangs_or_dies_is_named_in_training(
  source, monkeypatch, capsys
):
  """The reading thread is not the training thread."""
  monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.02)
  file = _hang(source, 2)

  def die():
    time.sleep(0.1)
    _let_go(file)
    _let_go(file)

  config = stream.StreamConfig(batch_size=8, mix_chunks=1)
  batches = stream.open_stream(source, HOOK, config, mesh=mesh.single())
  thread = threading.Thread(target=die)
  thread.start()
  with pytest.raises(errors.InputError) as raised:
    for _ in range(8):
      next(batches)
  batches.close()
  thread.join()
  said = capsys.readouterr().err
  for text in (str(raised.value), said):
    assert str(source.path) in text and f"{HOOK}: read chunk" in text
  assert "waiting for" in said


def test_waiting_for_a_harvest_is_spoken_of(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.02)
  place = location.Location(tmp_path)
  until = time.monotonic() + 0.3
  draining.until(
    lambda: time.monotonic() > until, place, f"write chunk 7 of {HOOK}"
  )
  lines = capsys.readouterr().err.splitlines()
  assert 1 <= len(lines) <= 4  # after 20, 40, 80, 160 ms, or later
  assert f"{tmp_path}: write chunk 7 of {HOOK}" in lines[0]
