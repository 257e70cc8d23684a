# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A second model on the tokens and rows of a finished store."""

import random
import time

import fake_harvest
import numpy as np
import pytest

from sae_jax import errors, store
from sae_jax.store import verify

HOOK = "blocks.0.hook_resid_post"


def tree(path):
  return {
    str(p.relative_to(path)): p.read_bytes()
    for p in path.rglob("*")
    if p.is_file()
  }


def rerun(base, out, *, activations=fake_harvest.tuned, **fields):
  """Harvests the tuned model on the tokens of `base`."""
  return fake_harvest.run(
    out, {"activations": activations}, tokens_of=str(base), **fields
  )


# Texts that end early, ragged lanes, chunks that end inside a context or with
# the text, and stores that were cut at the rows asked for.
@pytest.mark.parametrize(
  ("batches", "fields"),
  [
    (10**6, {}),
    (10**6, {"rows": 512, "lanes": 2}),
    (10**6, {"rows": 333, "write_rows": 16, "lanes": 3, "seed": 4}),
    (20, {}),
    *((n, {"rows": 2000, "lanes": 3, "write_rows": 16}) for n in range(18, 24)),
    (1, {"rows": 2000, "lanes": 3, "write_rows": 16}),
    (6, {"drop_special": False, "outlier_norm_multiple": 0.0}),
  ],
)
def test_the_two_stores_are_paired(tmp_path, batches, fields):
  base = fake_harvest.run(tmp_path / "base", {"batches": batches}, **fields)
  found = rerun(tmp_path / "base", tmp_path / "tuned")
  assert found.manifest.pairing_hash == base.manifest.pairing_hash
  assert store.paired(found, base)
  rows_N2 = base.positions(0, base.rows)
  np.testing.assert_array_equal(found.positions(0, found.rows), rows_N2)
  x_ND = found.read(HOOK, 0, found.rows)
  for row in range(0, base.rows, 7):
    document, position = rows_N2[row]
    tokens_T = base.document(document)
    np.testing.assert_array_equal(found.document(document), tokens_T)
    again = fake_harvest.tuned(tokens_T[None], None)[HOOK]
    np.testing.assert_array_equal(x_ND[row], again[0, position])
  assert verify.verify(found.path) == []


@pytest.mark.parametrize("lanes", [1, 3])
def test_text_that_ends_without_rows(tmp_path, monkeypatch, lanes):
  """The base was fed the end of its text too, though none of it is a row."""
  plain = fake_harvest.batch

  def batch(seed, lane, number):
    tokens_BT, mask_BT = plain(seed, lane, number)
    if number > 4:
      mask_BT[:, 1:] = False  # only BOS is left
      tokens_BT[:, 1:] = fake_harvest.PAD
    return tokens_BT, mask_BT

  monkeypatch.setattr(fake_harvest, "batch", batch)
  base = fake_harvest.run(
    tmp_path / "base", {"batches": 8 * lanes}, rows=2000, lanes=lanes
  )
  assert max(base.manifest.lane_batches) == 8
  found = rerun(tmp_path / "base", tmp_path / "tuned")
  assert store.paired(found, base)


def test_rows_that_the_base_dropped_stay_away_and_its_own_outliers_stay(
  tmp_path,
):
  base = fake_harvest.run(tmp_path / "base", {"batches": 20}, rows=10**6)
  assert base.manifest.dropped["outlier_norm"]
  found = rerun(tmp_path / "base", tmp_path / "tuned")
  left = sum(base.manifest.dropped.values())
  assert found.manifest.dropped == {"not_in_tokens_of": left}
  assert found.stats(HOOK).norm_quantiles[1.0] > 1e4
  # The same model again would give the same store to the byte.
  again = rerun(
    tmp_path / "base", tmp_path / "same", activations=fake_harvest.activations
  )
  np.testing.assert_array_equal(
    again.read(HOOK, 0, again.rows), base.read(HOOK, 0, base.rows)
  )


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_harvest_that_stops_anywhere_ends_byte_equal(tmp_path, lanes):
  fake_harvest.run(
    tmp_path / "base", {"batches": 21}, rows=2000, write_rows=16, lanes=lanes
  )
  rerun(tmp_path / "base", tmp_path / "whole")
  expected = tree(tmp_path / "whole")
  for after in (2, 11, 18):
    left = iter(range(after))

    def stop(tokens_BT, mask_BT, left=left):
      if next(left, None) is None:
        raise RuntimeError("killed")
      return fake_harvest.tuned(tokens_BT, mask_BT)

    out = tmp_path / f"{after}"
    with pytest.raises(RuntimeError, match="killed"):
      rerun(tmp_path / "base", out, activations=stop)
    rerun(tmp_path / "base", out)
    assert tree(out) == expected


@pytest.mark.slow
def test_several_processes_killed_at_random_end_byte_equal(forge, tmp_path):
  fake_harvest.run(tmp_path / "base", rows=1500, lanes=3)
  whole = tmp_path / "whole"
  rerun(tmp_path / "base", whole)
  out, killed = tmp_path / "s", 0
  rng = random.Random(0)

  def start(delay):
    how = {"processes": 2, "delay": delay}
    fields = {"tokens_of": str(tmp_path / "base")}
    return [
      fake_harvest.start(forge, out, how | {"process": n}, **fields)
      for n in range(2)
    ]

  for records in (1, 6, 15):
    running = start(0.01)
    while all(p.poll() is None for p in running) and records > len(
      list(out.glob("progress/chunk-*"))
    ):
      time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.04))
    killed += running[0].poll() is None
    for process in running:
      process.kill()
  for process in start(0.0):
    assert process.wait() == 0, process.said
  assert killed
  assert tree(out) == tree(whole)


def test_a_row_that_is_not_finite_is_refused(tmp_path):
  fake_harvest.run(tmp_path / "base")

  def poisoned(tokens_BT, mask_BT):
    found = fake_harvest.tuned(tokens_BT, mask_BT)
    found[HOOK][tokens_BT == 12] = np.nan
    return found

  with pytest.raises(errors.InputError, match=r"not finite .*float32"):
    rerun(tmp_path / "base", tmp_path / "s", activations=poisoned)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("rows", 100),
    ("batch_size", 5),
    ("lanes", 2),
    ("seed", 3),
    ("window", 4),
    ("drop_special", False),
    ("outlier_norm_multiple", 5.0),
    ("write_rows", 512),
  ],
)
def test_what_the_store_decides_cannot_be_set(tmp_path, field, value):
  fake_harvest.run(tmp_path / "base")
  with pytest.raises(errors.InputError, match=f"{field}={value}: with tok"):
    rerun(tmp_path / "base", tmp_path / "s", **{field: value})


def test_text_or_tokens(tmp_path):
  for fields in ({"text": None}, {"tokens_of": "some/store"}):
    with pytest.raises(errors.InputError, match="give one of them"):
      fake_harvest.config(**fields)
  with pytest.raises(errors.InputError, match="rows=0"):
    fake_harvest.config(rows=0)


def test_another_store_of_tokens_is_refused_but_it_may_move(tmp_path):
  fake_harvest.run(tmp_path / "base", {"batches": 6})
  fake_harvest.run(tmp_path / "other", {"batches": 6, "seed": 6})
  rerun(tmp_path / "base", tmp_path / "s")
  (tmp_path / "base").rename(tmp_path / "moved")
  rerun(tmp_path / "moved", tmp_path / "s")
  with pytest.raises(errors.InputError, match="text_fingerprint"):
    rerun(tmp_path / "other", tmp_path / "s")


def test_stores_that_cannot_be_written_again_are_refused(tmp_path):
  x = {HOOK: np.ones((6, 8), np.float32)}
  documents = [np.arange(3), np.arange(3), np.arange(3)]
  first = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
  for name, rows, match in (
    ("order", first[::-1], "not in the order"),
    ("twice", [*first[:5], first[4]], "not in the order"),
    ("rest", first, "text after its last row"),
  ):
    store.write_arrays(
      tmp_path / name,
      x,
      documents=documents,
      rows_N2=np.array(rows, np.int32),
      read_rows=1,
      write_rows=3,
    )
    with pytest.raises(errors.InputError, match=match):
      rerun(tmp_path / name, tmp_path / "s")
  whole = tmp_path / "whole"
  store.write_arrays(whole, x, documents=documents[:2], read_rows=1)
  assert store.paired(rerun(whole, tmp_path / "s"), store.open_store(whole))
