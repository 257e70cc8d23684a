# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every damage is found and named, by `verify` and by reading."""

import pathlib

import ml_dtypes
import numpy as np
import pytest

from sae_jax import errors, store
from sae_jax.store import verify

HOOK = "blocks.3.hook_resid_post"
ACTIVATIONS = f"activations/{HOOK}"
ROWS, READ, WRITE, WIDTH = 200, 8, 32, 4
# A shard: per read chunk data and crc32c, then 16 bytes of index each and one
# crc32c of the index.
BLOCK = READ * WIDTH * 2 + 4


def write(path, rows=ROWS):
  rng = np.random.default_rng(0)
  x_ND = rng.standard_normal((rows, WIDTH)).astype(ml_dtypes.bfloat16)
  documents = [rng.integers(0, 99, rows // 8) for _ in range(8)]
  store.write_arrays(
    path, {HOOK: x_ND}, documents=documents, read_rows=READ, write_rows=WRITE
  )
  return path


@pytest.fixture
def path(tmp_path):
  return write(tmp_path / "store")


def flip(file: pathlib.Path, at: int) -> bytes:
  before = file.read_bytes()
  after = bytearray(before)
  after[at] ^= 1
  file.write_bytes(after)
  return before


def test_a_whole_store_has_no_findings(path):
  seen = []
  assert verify.verify(path, lambda *done: seen.append(done)) == []
  assert seen[-1][0] == seen[-1][1] == len(seen) > 20


def test_every_flipped_byte_is_found(path):
  """Of every file: its first, last and random bytes."""
  rng = np.random.default_rng(0)
  files = [p for p in path.rglob("*") if p.is_file()]
  assert len(files) > 20
  for file in files:
    size = file.stat().st_size
    for at in {0, size - 1, *rng.integers(0, size, 3).tolist()}:
      before = flip(file, at)
      findings = verify.verify(path)
      name = str(file.relative_to(path))
      assert name in {f.file for f in findings}, (name, at)
      file.write_bytes(before)
  assert verify.verify(path) == []


@pytest.mark.slow
def test_every_single_byte_of_small_files_is_found(tmp_path):
  path = write(tmp_path / "store", rows=WRITE)  # one chunk: read 2,000 times
  for name in ("manifest.json", "rows/zarr.json", f"{ACTIVATIONS}/c/0/0"):
    file = path / name
    for at in range(file.stat().st_size):
      before = flip(file, at)
      assert verify.verify(path), (name, at)
      file.write_bytes(before)


def test_a_missing_file_is_found(path):
  for file in [p for p in path.rglob("*") if p.is_file()]:
    if file.name == "manifest.json":
      continue
    before = file.read_bytes()
    file.unlink()
    name = str(file.relative_to(path))
    found = [f for f in verify.verify(path) if f.file == name]
    assert found and all("missing" in f.problem for f in found), name
    file.write_bytes(before)


def test_a_truncated_file_is_found(path):
  file = path / ACTIVATIONS / "c/1/0"
  file.write_bytes(file.read_bytes()[:-7])
  assert {f.file for f in verify.verify(path)} == {f"{ACTIVATIONS}/c/1/0"}


def test_a_flipped_byte_names_hook_chunk_and_rows(path):
  # Read chunk 2 of write chunk 3 is read chunk 14, rows 112 … 119.
  flip(path / ACTIVATIONS / "c/3/0", 2 * BLOCK + 5)
  (finding,) = verify.verify(path)
  assert finding.file == f"{ACTIVATIONS}/c/3/0"
  for part in (str(path), HOOK, "read chunk 14", "rows 112..119", "damaged"):
    assert part in finding.problem
  source = store.open_store(path)
  for read in (
    lambda: source.read(HOOK, 100, 130),
    lambda: source.read_chunks(HOOK, [3, 14]),
  ):
    with pytest.raises(errors.InputError) as caught:
      read()
    assert str(caught.value) == finding.problem
  source.read(HOOK, 0, 112)  # the others can still be read
  source.read_chunks(HOOK, [13, 15])


def test_a_flipped_index_byte_names_all_its_rows(path):
  flip(path / ACTIVATIONS / "c/3/0", 4 * BLOCK + 3)
  problems = [f.problem for f in verify.verify(path)]
  assert len(problems) == 4
  assert all("damaged" in problem for problem in problems)


def test_reading_a_missing_chunk_raises(path):
  (path / ACTIVATIONS / "c/0/0").unlink()
  (path / "rows/c/1/0").unlink()
  (path / "tokens/c/0/0").unlink()
  source = store.open_store(path)
  with pytest.raises(errors.InputError, match=r"rows 0\.\.7.*missing"):
    source.read(HOOK, 0, 8)
  with pytest.raises(errors.InputError, match=r"rows: read chunk 4.*missing"):
    source.positions(32, 40)
  with pytest.raises(errors.InputError, match=r"tokens: read chunk 0.*missing"):
    source.document(0)


def test_a_damaged_manifest_is_refused_on_opening(path):
  flip(path / "manifest.json", 40)
  with pytest.raises(errors.InputError, match="damaged"):
    store.open_store(path)
  (finding,) = verify.verify(path)
  assert finding.file == "manifest.json"


def test_a_damaged_array_description_is_refused_on_reading(path):
  flip(path / ACTIVATIONS / "zarr.json", 60)
  with pytest.raises(errors.InputError, match=r"zarr\.json is damaged"):
    store.open_store(path).read(HOOK, 0, 1)


def test_chunks_of_another_store_are_found(path, tmp_path):
  """Their checksums are right; the pairing hash and statistics are not."""
  other = write(tmp_path / "other")
  for array, file in (("rows", "manifest.json"), (ACTIVATIONS, "stats.npz")):
    ours, theirs = path / array / "c/0/0", other / array / "c/1/0"
    before = ours.read_bytes()
    ours.write_bytes(theirs.read_bytes())
    assert [f.file for f in verify.verify(path)] == [file]
    ours.write_bytes(before)


def test_a_strange_file_is_found(path):
  (path / ACTIVATIONS / "c/99").mkdir()
  (path / ACTIVATIONS / "c/99/0").write_bytes(b"?")
  (finding,) = verify.verify(path)
  assert finding.file == f"{ACTIVATIONS}/c/99/0"


def test_an_unfinished_store_is_refused(path):
  (path / "manifest.json").unlink()
  with pytest.raises(errors.InputError, match="no activation store"):
    verify.verify(path)
