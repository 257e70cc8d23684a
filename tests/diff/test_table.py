# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The table of all methods: what is written is read, ranks, agreement."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats

from sae_jax import errors
from sae_jax.diff import agreement, table


def part(method="frozen", arm="bad", **columns):
  columns = {"score": np.array([1.0, -2.0, 0.0, 0.5])} | columns
  return table.Part(method=method, arm=arm, control="good", columns=columns)


def test_a_part_is_read_as_it_was_written(tmp_path):
  written = table.Part(
    method="match",
    arm="partner",
    dictionary="sae",
    columns={
      "score": np.array([0.5, np.nan]),
      "partner": np.array([3, -1]),
      "mutual": np.array([True, False]),
      "tags": np.array(["", "alone"], object),
    },
    summary={"found": 1},
    directions={"mean": np.array([1.0, 2.0])},
  )
  assert not table.has_part(tmp_path, "match", "partner")
  table.write_part(tmp_path, written)
  read = table.read_part(tmp_path, "match", "partner")
  assert read.summary == {"found": 1} and read.dictionary == "sae"
  np.testing.assert_array_equal(read.directions["mean"], [1, 2])
  for name, values in written.columns.items():
    np.testing.assert_array_equal(read.columns[name], values)


def test_the_joined_table_has_every_part_and_one_schema(tmp_path):
  table.write_part(tmp_path, part())
  table.write_part(tmp_path, part("linear", q=np.full(4, 0.2)))
  path = tmp_path / "latents.parquet"
  table.join(tmp_path, [("frozen", "bad"), ("linear", "bad")], path)
  whole = table.read(path)
  assert list(whole) == list(table.COLUMNS)
  assert whole["method"].tolist() == ["frozen"] * 4 + ["linear"] * 4
  assert whole["latent"].tolist() == [0, 1, 2, 3] * 2
  some = table.read(path, ["latent", "q", "changed", "tags"], method="frozen")
  assert np.isnan(some["q"]).all() and not some["changed"].any()
  assert some["tags"].tolist() == [""] * 4
  with pytest.raises(errors.InputError, match="no column 'colour'"):
    table.read(path, ["colour"])
  with pytest.raises(errors.InputError, match="no such table"):
    table.read(tmp_path / "nothing.parquet")


def test_a_part_is_found_in_a_table_that_was_written_anew(tmp_path):
  table.write_part(tmp_path, part())
  table.write_part(tmp_path, part("linear", q=np.full(4, 0.2)))
  path, mixed = tmp_path / "latents.parquet", tmp_path / "mixed.parquet"
  table.join(tmp_path, [("frozen", "bad"), ("linear", "bad")], path)
  pq.write_table(pq.read_table(path), mixed)
  assert pq.ParquetFile(path).num_row_groups == 2
  assert pq.ParquetFile(mixed).num_row_groups == 1
  for name in ("frozen", "linear", "neither"):
    one, other = (
      table.read(p, ("latent", "score", "q"), method=name, arm="bad")
      for p in (path, mixed)
    )
    assert list(one) == list(other) == ["latent", "score", "q"]
    assert len(one["latent"]) == (0 if name == "neither" else 4)
    for column, values in one.items():
      np.testing.assert_array_equal(values, other[column])


def test_ranks_go_both_ways_and_nan_comes_last():
  found = table.ranks(np.array([0.5, -3.0, np.nan, 2.0]))
  assert found["rank_up"].tolist() == [2, 3, 4, 1]
  assert found["rank_down"].tolist() == [2, 1, 4, 3]
  assert found["rank"].tolist() == [3, 1, 4, 2]


def test_a_part_without_a_score_or_with_a_strange_column_is_an_error():
  with pytest.raises(ValueError, match="colour"):
    part(colour=np.zeros(4))
  with pytest.raises(ValueError, match="lengths"):
    part(q=np.zeros(3))
  with pytest.raises(ValueError, match="no score"):
    table.Part(method="m", arm="a", columns={"q": np.zeros(3)})


def test_agreement_is_spearman_on_latents_that_both_score():
  rng = np.random.default_rng(0)
  a_F, b_F = rng.integers(-4, 5, (2, 200)).astype(float)
  b_F += a_F
  found = agreement.matrix(
    [part(score=a_F), part("linear", score=b_F), part("lens", score=0 * a_F)],
    top=20,
  )
  both = (a_F != 0) & (b_F != 0)
  expected = scipy.stats.spearmanr(a_F[both], b_F[both]).statistic
  assert found["labels"] == ["frozen/bad", "linear/bad", "lens/bad"]
  assert found["spearman"][0][1] == pytest.approx(expected, abs=1e-12)
  assert found["spearman"][0][0] == pytest.approx(1, abs=1e-12)
  assert found["spearman"][0][2] is None
  assert found["overlap"][0][0] == 1 and found["overlap"][0][2] == 0
