# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Paired stores, and hooks of one store, read side by side."""

import ml_dtypes
import numpy as np
import pytest

from sae_jax import errors, store

HOOK, OTHER = "blocks.3.hook_resid_post", "blocks.4.hook_resid_post"
WIDE = "blocks.4.hook_mlp_out"
ROWS, WIDTH = 440, 16


@pytest.fixture
def write(tmp_path):
  def write_(name, which, hooks=(HOOK,), rows=ROWS, **fields):
    rng = np.random.default_rng(which)
    x = {
      h: rng.standard_normal((rows, 2 * WIDTH if h == WIDE else WIDTH))
      for h in hooks
    }
    documents = [1000 * d + np.arange(20) for d in range(rows // 20)]
    given = {"read_rows": 16, "write_rows": 64, "seed": 3} | fields
    store.write_arrays(tmp_path / name, x, documents=documents, **given)
    return store.open_store(tmp_path / name)

  return write_


# Also where they are cut into read chunks of different sizes.
@pytest.mark.parametrize("read_rows", [16, 64])
def test_rows_of_models_lie_side_by_side(write, read_rows):
  base = write("base", 0, (HOOK, OTHER))
  tuned = write("tuned", 1, read_rows=read_rows)
  third = write("third", 2)
  found = store.joined([base, tuned, third])
  assert found.hooks == (HOOK,)
  assert found.rows == ROWS and found.d_model(HOOK) == 3 * WIDTH
  expected_ND = np.concatenate(
    [s.read(HOOK, 0, ROWS) for s in (base, tuned, third)], axis=1
  )
  np.testing.assert_array_equal(found.read(HOOK, 0, ROWS), expected_ND)
  chunks = [5, 0, found.num_chunks - 1]
  for chunk, x_ND in zip(chunks, found.read_chunks(HOOK, chunks), strict=True):
    assert x_ND.dtype == ml_dtypes.bfloat16
    at = slice(16 * chunk, 16 * chunk + 16)
    np.testing.assert_array_equal(x_ND, expected_ND[at])
  for row in (0, 439):
    assert found.context(row).document == base.context(row).document
  np.testing.assert_array_equal(
    found.positions(0, ROWS), base.positions(0, ROWS)
  )
  assert found.holdout(100) == base.holdout(100)
  assert [s.store.path for s in found.sources(HOOK)] == [
    base.path,
    tuned.path,
    third.path,
  ]


def test_rows_of_layers_lie_side_by_side(write):
  one = write("one", 0, (HOOK, OTHER))
  two = write("two", 1, (OTHER, HOOK))
  name = f"{HOOK}+{OTHER}"
  found = store.joined([one], [HOOK, OTHER])
  assert found.hooks == (name,) and found.d_model(name) == 2 * WIDTH
  # A config says where the crosscoder begins.
  assert found.hook(HOOK) == found.hook("model.layers.3") == name
  for read in (found.read(HOOK, 3, 90), found.read(name, 3, 90)):
    np.testing.assert_array_equal(read[:, :WIDTH], one.read(HOOK, 3, 90))
    np.testing.assert_array_equal(read[:, WIDTH:], one.read(OTHER, 3, 90))
  with pytest.raises(errors.InputError, match="has no hook"):
    found.read(OTHER, 0, 1)
  both = store.joined([one, two], [HOOK, OTHER])
  x_ND = both.read(name, 0, 10)
  for i, (s, h) in enumerate(
    [(one, HOOK), (one, OTHER), (two, HOOK), (two, OTHER)]
  ):
    part_ND = x_ND[:, i * WIDTH : (i + 1) * WIDTH]
    np.testing.assert_array_equal(part_ND, s.read(h, 0, 10))


def test_statistics_are_those_of_the_joined_rows(write):
  found = store.joined([write("base", 0), write("tuned", 1)])
  x_ND = found.read(HOOK, 0, ROWS).astype(np.float64)
  stats = found.stats(HOOK)
  assert stats.rows == ROWS
  # float64 sums of exact float32 squares
  np.testing.assert_allclose(stats.mean_D, x_ND.mean(0), rtol=0, atol=1e-14)
  np.testing.assert_allclose(stats.variance_D, x_ND.var(0), rtol=1e-12)
  square = np.mean(np.sum(x_ND**2, 1))
  np.testing.assert_allclose(stats.mean_square_norm, square, rtol=1e-12)


def test_identity_depends_on_all_sources_and_their_order(write):
  a, b, c = (write(n, i, (HOOK, OTHER)) for i, n in enumerate("abc"))
  found = [
    *(store.joined(s) for s in ([a, b], [b, a], [a, c], [a, b, c])),
    *(store.joined([a], h) for h in ([HOOK, OTHER], [OTHER, HOOK])),
    store.joined([a, b], [HOOK, OTHER]),
  ]
  assert len({one.identity for one in found}) == len(found)
  again = store.joined([store.open_store(a.path), b])
  assert again.identity == found[0].identity
  assert found[3].identities == {
    "store": a.identity,
    "paired_0": b.identity,
    "paired_1": c.identity,
  }


def test_what_cannot_lie_side_by_side_is_refused_by_name(write):
  a, b = write("base", 0), write("tuned", 1, seed=4)
  with pytest.raises(errors.InputError, match="not paired") as error:
    store.joined([a, b])
  assert b.path in str(error.value)
  assert f"tokens_of={a.path!r}" in str(error.value)
  with pytest.raises(errors.InputError, match="no hook of one width"):
    store.joined([a, write("other", 1, (OTHER,))])
  with pytest.raises(errors.InputError, match="one store and one hook"):
    store.joined([a])
  c = write("wide", 2, (HOOK, WIDE))
  with pytest.raises(errors.InputError, match="is 32 wide"):
    store.joined([c], [HOOK, WIDE])
  with pytest.raises(errors.InputError, match="named twice"):
    store.joined([c], [HOOK, "model.layers.3"])


def test_damage_is_reported_with_the_store_it_is_in(write, tmp_path):
  found = store.joined([write("base", 0), write("tuned", 1)])
  file = tmp_path / "tuned" / "activations" / HOOK / "c/1/0"
  data = bytearray(file.read_bytes())
  data[100] ^= 1
  file.write_bytes(data)
  with pytest.raises(errors.InputError, match=f"{tmp_path}/tuned.*damaged"):
    found.read_chunks(HOOK, [4])
