# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Two paired stores read as their difference."""

import ml_dtypes
import numpy as np
import pytest

from sae_jax import errors, store

HOOK, OTHER = "blocks.3.hook_resid_post", "blocks.4.hook_mlp_out"
ROWS, WIDTH = 440, 16


@pytest.fixture
def write(tmp_path):
  def write_(name, which, hooks=(HOOK,), rows=ROWS, **fields):
    rng = np.random.default_rng(which)
    x = {h: rng.standard_normal((rows, WIDTH)) for h in hooks}
    documents = [1000 * d + np.arange(20) for d in range(rows // 20)]
    given = {"read_rows": 16, "write_rows": 64, "seed": 3} | fields
    store.write_arrays(tmp_path / name, x, documents=documents, **given)
    return store.open_store(tmp_path / name)

  return write_


def minus(a_ND, b_ND):
  wide_ND = a_ND.astype(np.float32) - b_ND.astype(np.float32)
  return wide_ND.astype(ml_dtypes.bfloat16)


# Also where the two are cut into read chunks of different sizes.
@pytest.mark.parametrize("read_rows", [16, 64])
def test_rows_are_differences(write, read_rows):
  tuned = write("tuned", 0, (HOOK, OTHER))
  base = write("base", 1, read_rows=read_rows)
  found = store.difference(tuned, base)
  assert found.hooks == (HOOK,)
  assert found.rows == ROWS
  expected_ND = minus(tuned.read(HOOK, 0, ROWS), base.read(HOOK, 0, ROWS))
  np.testing.assert_array_equal(found.read(HOOK, 0, ROWS), expected_ND)
  chunks = [5, 0, found.num_chunks - 1]
  for chunk, x_ND in zip(chunks, found.read_chunks(HOOK, chunks), strict=True):
    assert x_ND.dtype == ml_dtypes.bfloat16
    at = slice(16 * chunk, 16 * chunk + 16)
    np.testing.assert_array_equal(x_ND, expected_ND[at])
  for row in (0, 77, 439):
    assert found.context(row).document == base.context(row).document
    np.testing.assert_array_equal(
      found.document(found.context(row).document),
      base.document(base.context(row).document),
    )
  assert found.holdout(100) == tuned.holdout(100)


def test_statistics_are_those_of_the_differences(write):
  found = store.difference(write("tuned", 0), write("base", 1))
  x_ND = found.read(HOOK, 0, ROWS).astype(np.float64)
  stats = found.stats(HOOK)
  assert stats.rows == ROWS
  # float64 sums of exact float32 squares
  np.testing.assert_allclose(stats.mean_D, x_ND.mean(0), rtol=0, atol=1e-14)
  np.testing.assert_allclose(stats.variance_D, x_ND.var(0), rtol=1e-12)
  square = np.mean(np.sum(x_ND**2, 1))
  np.testing.assert_allclose(stats.mean_square_norm, square, rtol=1e-12)


def test_identity_depends_on_both_and_on_their_order(write):
  a, b, c = write("a", 0), write("b", 1), write("c", 2)
  pairs = [(a, b), (b, a), (a, c), (c, b)]
  assert len({store.difference(*pair).identity for pair in pairs}) == 4
  again = store.difference(store.open_store(a.path), b)
  assert again.identity == store.difference(a, b).identity
  assert again.identities == {"store": a.identity, "minus": b.identity}


@pytest.mark.parametrize(
  "fields",
  [{"seed": 4}, {"rows": 420}, {"write_rows": 128}],
)
def test_unpaired_stores_are_refused_by_name(write, fields):
  a, b = write("tuned", 0), write("base", 1, **fields)
  with pytest.raises(errors.InputError, match="not paired") as error:
    store.difference(a, b)
  assert a.path in str(error.value)
  assert f"tokens_of={b.path!r}" in str(error.value)


def test_stores_without_a_common_hook_are_refused(write):
  a, b = write("tuned", 0), write("base", 1, (OTHER,))
  with pytest.raises(errors.InputError, match="no hook of one width") as error:
    store.difference(a, b)
  assert HOOK in str(error.value) and OTHER in str(error.value)


def test_no_other_hook_is_read(write):
  found = store.difference(write("tuned", 0, (HOOK, OTHER)), write("base", 1))
  with pytest.raises(errors.InputError, match="has no hook"):
    found.read(OTHER, 0, 1)


def test_damage_is_reported_with_the_store_it_is_in(write, tmp_path):
  found = store.difference(write("tuned", 0), write("base", 1))
  file = tmp_path / "base" / "activations" / HOOK / "c/1/0"
  data = bytearray(file.read_bytes())
  data[100] ^= 1
  file.write_bytes(data)
  with pytest.raises(errors.InputError, match=f"{tmp_path}/base.*damaged"):
    found.read(HOOK, 64, 80)
