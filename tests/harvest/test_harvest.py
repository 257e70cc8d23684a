# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a harvest of a stand-in source puts into the store."""

import dataclasses
import errno
import json
import os
import signal

import fake_harvest
import numpy as np
import pytest

from sae_jax import config as config_lib
from sae_jax import errors, harvest, store
from sae_jax.store import records, verify

HOOK = "blocks.0.hook_resid_post"


def tree(path):
  """Every file of a directory with its bytes."""
  return {
    str(p.relative_to(path)): p.read_bytes()
    for p in path.rglob("*")
    if p.is_file()
  }


def test_rows_are_the_activations_of_their_tokens(tmp_path):
  source = fake_harvest.run(tmp_path / "s")
  assert source.rows == 500
  assert source.hooks == tuple(fake_harvest.HOOKS)
  rows_N2 = source.positions(0, 500)
  for hook in source.hooks:
    x_ND = source.read(hook, 0, 500)
    for row in range(0, 500, 3):
      document, position = rows_N2[row]
      tokens_T = source.document(document)
      again = fake_harvest.activations(tokens_T[None], None)[hook]
      np.testing.assert_array_equal(x_ND[row], again[0, position])
  assert verify.verify(source.path) == []


def test_documents_are_the_sequences_as_fed(tmp_path):
  source = fake_harvest.run(tmp_path / "s", lanes=3)
  fed = {
    tuple(tokens_T[mask_T])
    for lane in range(3)
    for number in range(40)
    for tokens_T, mask_T in zip(
      *fake_harvest.batch(5, lane, number), strict=True
    )
  }
  for document in np.unique(source.positions(0, 500)[:, 0]):
    assert tuple(source.document(document)) in fed


def test_every_kept_token_is_a_row_once(tmp_path):
  source = fake_harvest.run(tmp_path / "s", {"batches": 20}, rows=10**6)
  expected, dropped = set(), {"bos": 0, "outlier_norm": 0}
  for number in range(20):
    tokens_BT, mask_BT = fake_harvest.batch(5, 0, number)
    for b, t in np.argwhere(mask_BT):
      if t == 0:
        dropped["bos"] += 1
      elif t == 1 and tokens_BT[b, t] == 9:
        dropped["outlier_norm"] += 1
      else:
        expected.add((number * fake_harvest.BATCH + int(b), int(t)))
  rows = [tuple(row) for row in source.positions(0, source.rows).tolist()]
  assert len(rows) == len(set(rows)) == source.rows
  assert set(rows) == expected
  assert dropped["outlier_norm"] > 0
  assert source.manifest.dropped == dropped == source.stats(HOOK).dropped


def test_filters_can_be_turned_off(tmp_path):
  source = fake_harvest.run(
    tmp_path / "s",
    {"batches": 20},
    rows=10**6,
    drop_special=False,
    outlier_norm_multiple=0.0,
  )
  tokens = sum(fake_harvest.batch(5, 0, n)[1].sum() for n in range(20))
  assert source.rows == tokens
  assert source.manifest.dropped == {}


def test_rows_that_are_not_finite_are_dropped(tmp_path, monkeypatch):
  plain = fake_harvest.activations

  def poisoned(tokens_BT, mask_BT):
    found = plain(tokens_BT, mask_BT)
    found[HOOK][tokens_BT == 11] = np.nan
    found["blocks.1.hook_mlp_out"][tokens_BT == 12] = np.inf
    return found

  monkeypatch.setattr(fake_harvest, "activations", poisoned)
  source = fake_harvest.run(tmp_path / "s", {"batches": 20}, rows=10**6)
  hits = 0
  for number in range(20):
    tokens_BT, mask_BT = fake_harvest.batch(5, 0, number)
    hits += int((np.isin(tokens_BT, (11, 12)) & mask_BT).sum())
  assert source.manifest.dropped["non_finite"] == hits > 0
  assert np.isfinite(source.read(HOOK, 0, source.rows).astype(float)).all()


def test_text_that_ends_early_says_so(tmp_path, capfd):
  source = fake_harvest.run(tmp_path / "s", {"batches": 20})
  assert source.rows < 500
  assert source.manifest.requested_rows == 500
  assert f"after {source.rows:,} of the 500 rows" in capfd.readouterr().err
  assert verify.verify(source.path) == []


@pytest.mark.parametrize("batches", [19, 20, 21, 22, 23])
def test_lanes_that_end_raggedly_keep_a_prefix(tmp_path, batches):
  source = fake_harvest.run(
    tmp_path / "s", {"batches": batches}, rows=2000, lanes=3, write_rows=16
  )
  rows = [tuple(row) for row in source.positions(0, source.rows).tolist()]
  assert len(rows) == len(set(rows)) == source.rows
  assert 0 < source.rows < 2000
  assert verify.verify(source.path) == []


@pytest.mark.parametrize(
  ("fields", "same"),
  [
    ({"seed": 0}, True),
    ({"seed": 1}, False),
    ({"read_rows": 16}, True),
    ({"lanes": 2}, False),
  ],
)
def test_pairing(tmp_path, fields, same):
  a = fake_harvest.run(tmp_path / "a")
  b = fake_harvest.run(tmp_path / "b", {"weights_hash": "other"}, **fields)
  assert store.paired(a, b) == same


def test_a_record_is_written_after_its_arrays(tmp_path, monkeypatch):
  path, seen = tmp_path / "s", []
  plain = records.write

  def check(place, record):
    arrays = [f"activations/{hook}" for hook in fake_harvest.HOOKS]
    for array in (*arrays, "rows"):
      assert (path / array / f"c/{record.chunk}/0").exists()
    for batch in range(record.first_batch, record.batches):
      assert (path / f"tokens/c/{batch}/0").exists()
    seen.append(record.chunk)
    plain(place, record)

  monkeypatch.setattr(records, "write", check)
  fake_harvest.run(path)
  assert seen == list(range(8))


def test_a_finished_harvest_is_left_alone(tmp_path, monkeypatch):
  path = tmp_path / "s"
  fake_harvest.run(path)
  before = tree(path)

  def refuse(*args):
    raise AssertionError("ran the model again")

  monkeypatch.setattr(fake_harvest, "activations", refuse)
  fake_harvest.run(path)
  assert tree(path) == before
  assert not {n for n in before if n.startswith(("progress", "."))}


@pytest.mark.parametrize(
  ("how", "fields", "message"),
  [
    ({}, {"rows": 501}, "rows = 500, now it is 501"),
    ({}, {"seed": 4}, "seed = 0, now it is 4"),
    ({"weights_hash": "x"}, {}, "weights_hash = 'w', now it is 'x'"),
    ({"text_fingerprint": "x"}, {}, "text_fingerprint = 'f', now"),
  ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_harvest_is_refused(tmp_path, how, fields, message, finished):
  path = tmp_path / "s"
  if finished:
    fake_harvest.run(path)
  else:
    with pytest.raises(KeyboardInterrupt):
      interrupted(path, KeyboardInterrupt())
  with pytest.raises(errors.InputError, match=message):
    fake_harvest.run(path, how, **fields)


def interrupted(path, error, after=10):
  """A harvest whose model fails at a later batch."""
  source = fake_harvest.source()
  left = iter(range(after))

  def fail(tokens_BT, mask_BT):
    if next(left, None) is None:
      raise error
    return fake_harvest.activations(tokens_BT, mask_BT)

  fake_harvest.job.run(
    fake_harvest.config(), dataclasses.replace(source, activations=fail), path
  )


def test_a_model_that_fails_leaves_a_resumable_store(tmp_path):
  fake_harvest.run(tmp_path / "whole")
  path = tmp_path / "s"
  with pytest.raises(RuntimeError, match="out of memory"):
    interrupted(path, RuntimeError("out of memory"))
  with pytest.raises(errors.InputError, match="unfinished"):
    store.open_store(path)
  fake_harvest.run(path)
  assert tree(path) == tree(tmp_path / "whole")


def test_sigterm_stops_and_a_second_run_goes_on(tmp_path):
  fake_harvest.run(tmp_path / "whole")
  path = tmp_path / "s"

  class Kill:
    def __iter__(self):
      for n in range(10**6):
        if n == 15:
          os.kill(os.getpid(), signal.SIGTERM)
        yield fake_harvest.batch(5, 0, n)

  source = dataclasses.replace(
    fake_harvest.source(), open_batches=lambda lane, first: Kill()
  )
  with pytest.raises(
    errors.Interrupted, match=r"SIGTERM.*run the same command"
  ):
    fake_harvest.job.run(fake_harvest.config(), source, path)
  fake_harvest.run(path)
  assert tree(path) == tree(tmp_path / "whole")


def test_two_harvests_into_one_directory_are_refused(tmp_path):
  seen = []

  def nested(tokens_BT, mask_BT):
    if not seen:
      seen.append(True)
      with pytest.raises(errors.InputError, match="written by another run"):
        fake_harvest.run(tmp_path / "s")
    return fake_harvest.activations(tokens_BT, mask_BT)

  source = dataclasses.replace(fake_harvest.source(), activations=nested)
  fake_harvest.job.run(fake_harvest.config(), source, tmp_path / "s")
  assert seen


def test_a_directory_of_something_else_is_refused(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  with pytest.raises(errors.InputError, match=r"holds 'notes\.txt'"):
    fake_harvest.run(tmp_path)
  assert tree(tmp_path) == {"notes.txt": b"mine"}


def test_nothing_to_keep(tmp_path):
  def only_bos(lane, first):
    for _ in range(3):
      yield np.full((3, 12), fake_harvest.BOS), np.ones((3, 12), bool)

  source = dataclasses.replace(fake_harvest.source(), open_batches=only_bos)
  with pytest.raises(errors.InputError, match="every token is dropped"):
    fake_harvest.job.run(fake_harvest.config(), source, tmp_path / "s")
  assert not tree(tmp_path / "s")


def test_model_and_text_may_move(tmp_path):
  path = tmp_path / "s"
  fake_harvest.run(tmp_path / "whole")
  with pytest.raises(KeyboardInterrupt):
    interrupted(path, KeyboardInterrupt())
  fake_harvest.run(path, {"text_source": "/b.txt"}, model="/elsewhere")
  assert tree(path) == tree(tmp_path / "whole")


def test_a_full_disk_says_so(tmp_path, monkeypatch):
  """TensorStore's own words for ENOSPC."""
  place = fake_harvest.store.writer.location.Location(tmp_path)
  error = place.explain(
    ValueError(
      'RESOURCE_EXHAUSTED: Failed to write "/x.__lock":'
      " No space left on device [os_error_code='28']"
    ),
    "cannot write chunk 3",
  )
  assert isinstance(error, OSError) and error.errno == errno.ENOSPC
  assert str(tmp_path) in str(error) and "chunk 3" in str(error)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"hooks": ()}, "name at least one"),
    ({"rows": 0}, "rows=0"),
    ({"write_rows": 100}, "not a multiple of"),
    ({"outlier_norm_multiple": 0.5}, "above 1, or 0"),
    ({"window": 3, "lanes": 2}, "at least 2 write chunks per lane"),
    ({"seed": -1}, "seed=-1"),
  ],
)
def test_wrong_configs(fields, message):
  with pytest.raises(errors.InputError, match=message):
    fake_harvest.config(**fields)


def test_too_few_lanes_for_the_processes(tmp_path):
  with pytest.raises(errors.InputError, match="lanes=1, but there are 2"):
    fake_harvest.run(tmp_path / "s", {"process": 0, "processes": 2})


def test_the_config_survives_json():
  config = fake_harvest.config(lanes=2)
  value = json.loads(json.dumps(config_lib.to_dict(config)))
  assert config_lib.from_dict(harvest.HarvestConfig, value) == config
