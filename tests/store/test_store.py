# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Stores written from arrays and read back."""

import json
import time

import ml_dtypes
import numpy as np
import pytest
import tensorstore as ts

from sae_jax import errors, store
from sae_jax.store import location, statistics, verify, writer

HOOK, OTHER = "blocks.3.hook_resid_post", "blocks.4.hook_mlp_out"
LENGTHS = [5, 1, 30, 12, 40, 22] * 4


@pytest.fixture
def documents():
  return [1000 * d + np.arange(n) for d, n in enumerate(LENGTHS)]


@pytest.fixture
def x(documents):
  rng = np.random.default_rng(0)
  n = sum(map(len, documents))
  return {
    HOOK: rng.standard_normal((n, 16)).astype(ml_dtypes.bfloat16),
    OTHER: rng.standard_normal((n, 4)).astype(ml_dtypes.bfloat16),
  }


@pytest.fixture
def opened(tmp_path, documents, x):
  path = tmp_path / "store"
  store.write_arrays(
    path, x, documents=documents, read_rows=16, write_rows=64, seed=3
  )
  return store.open_store(path)


def flat_index(source, documents):
  """Which row of the arrays each row of the store is."""
  starts = np.cumsum([0, *map(len, documents)])
  document_N, position_N = source.positions(0, source.rows).T
  return starts[document_N] + position_N


def test_every_row_is_there_once_with_its_own_token(opened, documents, x):
  index_N = flat_index(opened, documents)
  assert (np.sort(index_N) == np.arange(440)).all()
  for hook in (HOOK, OTHER):
    assert opened.read(hook, 0, 440).dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(opened.read(hook, 0, 440), x[hook][index_N])


def test_rows_are_permuted_inside_their_write_chunk_only(opened, documents):
  index_N = flat_index(opened, documents)
  for start in range(0, 440, 64):
    chunk_R = index_N[start : start + 64]
    own_R = np.arange(start, min(start + 64, 440))
    assert (np.sort(chunk_R) == own_R).all()
    assert (chunk_R != own_R).mean() > 0.5
  first, second = index_N[:64], index_N[64:128] - 64
  assert (first != second).any()


def test_the_permutation_of_a_seed_is_settled():
  """Stores of older versions stay paired with new ones only while it holds."""
  order = writer.permutation(7, 2, 10).tolist()
  assert order == [6, 7, 8, 4, 0, 1, 5, 3, 9, 2]


def test_read_chunks_are_slices(opened):
  got = opened.read_chunks(HOOK, [27, 0, 5])
  assert [len(block) for block in got] == [8, 16, 16]
  for block, start in zip(got, (432, 0, 80), strict=True):
    np.testing.assert_array_equal(
      block, opened.read(HOOK, start, start + len(block))
    )
  assert opened.num_chunks == 28
  assert opened.chunk_rows(range(26, 28)) == 24


def test_documents_and_contexts(opened, documents):
  np.testing.assert_array_equal(opened.document(4), documents[4])
  for row in (0, 63, 100, 439):
    document, position = opened.positions(row, row + 1)[0]
    context = opened.context(row, before=3, after=2)
    tokens_T = documents[document]
    assert context.tokens[context.position] == tokens_T[position]
    np.testing.assert_array_equal(
      context.tokens, tokens_T[max(0, position - 3) : position + 3]
    )
    assert context.start + context.position == position


def test_statistics_are_those_of_the_rows(opened, x):
  exact_ND = x[HOOK].astype(np.float64)
  stats = opened.stats(HOOK)
  assert stats.rows == 440
  # 440 float64 additions: 440 · 2^-53 relative to sums of about 440.
  np.testing.assert_allclose(stats.mean_D, exact_ND.mean(0), atol=1e-13)
  np.testing.assert_allclose(stats.variance_D, exact_ND.var(0), atol=1e-12)
  norm_N = np.linalg.norm(exact_ND, axis=1)
  np.testing.assert_allclose(stats.mean_square_norm, (norm_N**2).mean())
  for p, quantile in stats.norm_quantiles.items():
    low, high = np.quantile(norm_N, [max(0, p - 1 / 440), min(1, p + 1 / 440)])
    assert low / 2 ** (1 / 32) <= quantile <= high * 2 ** (1 / 32), p
  assert stats.norm_quantiles[0.0] == pytest.approx(norm_N.min())
  assert stats.norm_quantiles[1.0] == pytest.approx(norm_N.max())


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e18])
def test_norms_out_of_the_histogram_keep_their_extremes(scale):
  x_RD = np.full((5, 3), scale).astype(ml_dtypes.bfloat16)
  norm = float(x_RD[0, 0]) * 3**0.5
  stats = statistics.finish(statistics.moments(x_RD), {})
  assert all(q == pytest.approx(norm) for q in stats.norm_quantiles.values())


def test_statistics_do_not_depend_on_the_clock(monkeypatch):
  stats = {HOOK: statistics.finish(statistics.moments(np.ones((2, 3))), {})}
  before = statistics.to_bytes(stats)
  monkeypatch.setattr(time, "time", lambda: 2e9)
  assert statistics.to_bytes(stats) == before


def test_holdout_takes_whole_last_write_chunks(opened):
  assert opened.holdout(0) == (range(28), range(28, 28))
  assert opened.holdout(1) == (range(24), range(24, 28))  # rows 384 … 439
  assert opened.holdout(56) == (range(24), range(24, 28))
  assert opened.holdout(57) == (range(20), range(20, 28))
  with pytest.raises(errors.InputError, match="takes all 440"):
    opened.holdout(400)


def test_plain_tensorstore_reads_it(opened):
  spec = {
    "driver": "zarr3",
    "kvstore": f"file://{opened.path}/activations/{HOOK}/",
  }
  array = ts.open(spec).result()
  np.testing.assert_array_equal(
    array.read().result(), opened.read(HOOK, 0, 440)
  )
  assert array.chunk_layout.read_chunk.shape == (16, 16)
  assert array.chunk_layout.write_chunk.shape == (64, 16)


def test_data_and_index_carry_checksums(opened):
  for name in (f"activations/{HOOK}", "rows", "tokens"):
    metadata = json.loads(opened.place.read(f"{name}/zarr.json"))
    (shards,) = metadata["codecs"]
    for codecs in ("codecs", "index_codecs"):
      assert {"name": "crc32c"} in shards["configuration"][codecs]


def test_a_url_is_a_path(tmp_path, x):
  url = f"file://{tmp_path}/by_url"
  store.write_arrays(url, {HOOK: x[HOOK]})
  assert store.open_store(tmp_path / "by_url").rows == 440
  with pytest.raises(errors.InputError, match="local directory, gs://"):
    location.Location("http://example.com/store")
  assert location.Location("gs://bucket/a/").spec("b") == "gs://bucket/a/b/"
  assert location.Location("s3://bucket/a").spec() == "s3://bucket/a/"


def test_stores_of_the_same_tokens_are_paired(tmp_path, documents, x):
  def write(name, x, **kwargs):
    path = tmp_path / name
    store.write_arrays(path, x, write_rows=64, read_rows=16, **kwargs)
    return store.open_store(path)

  a = write("a", {HOOK: x[HOOK]}, documents=documents)
  b = write("b", {OTHER: x[OTHER]}, documents=documents)
  assert store.paired(a, b)
  assert not store.paired(a, write("c", x, documents=documents, seed=1))
  longer = [documents[0] + 1, *documents[1:]]
  assert not store.paired(a, write("d", x, documents=longer))
  rows_N2 = a.positions(0, 440)
  other_rows = write("e", x, documents=documents, rows_N2=rows_N2)
  assert not store.paired(a, other_rows)


def test_hooks_are_found_by_either_spelling(opened):
  assert opened.hook("model.layers.3") == HOOK
  assert opened.d_model("transformer.h.3") == 16
  with pytest.raises(errors.InputError, match=f"no hook.*{HOOK}, {OTHER}"):
    opened.read("blocks.9.hook_resid_post", 0, 1)


@pytest.mark.parametrize("span", [(-1, 3), (5, 441), (7, 6)])
def test_rows_that_are_not_there(opened, span):
  with pytest.raises(errors.InputError, match="there are 440"):
    opened.read(HOOK, *span)


def test_no_store(tmp_path, opened):
  with pytest.raises(errors.InputError, match="is no activation store"):
    store.open_store(tmp_path / "nowhere")
  manifest = opened.place.read("manifest.json")
  (tmp_path / "other").mkdir()
  (tmp_path / "other/manifest.json").write_text('{"job": "train"}')
  with pytest.raises(errors.InputError, match="'train' job, not of an activ"):
    store.open_store(tmp_path / "other")
  opened.place.delete(["manifest.json"])
  with pytest.raises(errors.InputError, match="is no activation store"):
    store.open_store(opened.path)
  opened.place.write("progress/start.json", manifest)
  with pytest.raises(errors.InputError, match=r"unfinished.*resume"):
    store.open_store(opened.path)


def test_documents_without_tokens_are_stored(tmp_path):
  """A whole chunk of them equals the fill value, and is there all the same."""
  documents = [[]] * 8 + [[5, 6]] + [[]] * 8
  x_ND = np.ones((2, 3))
  path = tmp_path / "s"
  store.write_arrays(
    path, {HOOK: x_ND}, documents=documents, read_rows=4, write_rows=4
  )
  source = store.open_store(path)
  assert [len(source.document(d)) for d in range(17)] == list(
    map(len, documents)
  )
  assert verify.verify(path) == []


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"rows_N2": np.zeros((440, 3), int)}, r"expected \[N, 2\]"),
    ({"rows_N2": np.full((440, 2), 40)}, "there are 24 documents"),
    ({"rows_N2": np.full((440, 2), (1, 1))}, "document 1, which has 1 tokens"),
    ({"read_rows": 3}, "multiple of read_rows"),
    ({"activations": {}}, "no rows"),
    ({"activations": {HOOK: np.full((440, 2), np.nan)}}, "row 0.*not finite"),
    ({"activations": {HOOK: np.zeros((3, 2))}}, r"expected \[440, D\]"),
  ],
)
def test_arrays_that_do_not_fit(tmp_path, documents, x, change, message):
  kwargs = {"activations": x, "documents": documents, **change}
  with pytest.raises(errors.InputError, match=message):
    store.write_arrays(tmp_path / "bad", **kwargs)
  assert not (tmp_path / "bad").exists()
