# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Several hooks of a store in one stream: the same rows, each of its hook."""

import jax
import ml_dtypes
import numpy as np
import pytest
from counting import CountingStore, config, row_numbers, take

from sae_jax import errors, mesh, stream


class TwoHooks(CountingStore):
  """Hook "w" holds what "h" holds and its negative beside it."""

  def read_chunks(self, hook, chunk_ids):
    chunks = super().read_chunks(hook, chunk_ids)
    if hook == "h":
      return chunks
    return [
      np.concatenate([x_R2, -x_R2], axis=1).astype(ml_dtypes.bfloat16)
      for x_R2 in chunks
    ]


@pytest.fixture
def open_stream():
  opened = []

  def open_(store, hooks, how, *, on=None, **kwargs):
    on = mesh.single() if on is None else on
    opened.append(stream.open_stream(store, hooks, how, mesh=on, **kwargs))
    return opened[-1]

  yield open_
  for each in opened:
    each.close()


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 4, 1)])
def test_every_hook_shows_the_rows_that_one_alone_shows(open_stream, sizes):
  axes = dict(zip(mesh.AXES, sizes, strict=True))
  on = mesh.make(mesh.MeshConfig(**axes), jax.devices()[: np.prod(sizes)])
  store, how = TwoHooks(101), config(16, lanes=4)
  expected = take(open_stream(store, "h", how), 20)
  both = open_stream(store, ("w", "h"), how, on=on)
  for i in range(20):  # over an epoch's end
    w_B4, h_B2 = next(both)
    assert (row_numbers(h_B2) == expected[i]).all()
    np.testing.assert_array_equal(w_B4[:, :2], h_B2)
    np.testing.assert_array_equal(w_B4[:, 2:], -h_B2)


def test_a_state_is_of_the_rows_and_not_of_the_hooks(open_stream):
  store, how = TwoHooks(96), config()
  one = open_stream(store, "h", how)
  take(one, 5)
  several = open_stream(store, ("h", "w"), how, start_state=one.state())
  assert several.batches == 5
  h_B2, _ = next(several)
  assert (row_numbers(h_B2) == take(one, 1)[0]).all()
  assert several.state() == one.state()


def test_a_tuple_of_one_hook_gives_tuples_and_none_is_refused(open_stream):
  (h_B2,) = next(open_stream(TwoHooks(96), ("h",), config()))
  assert h_B2.shape == (8, 2)
  with pytest.raises(errors.InputError, match="at least one hook"):
    open_stream(TwoHooks(96), (), config())


def test_all_hooks_of_a_draw_are_read_before_the_next(open_stream):
  reads = []

  class Logging(TwoHooks):
    def read_chunks(self, hook, chunk_ids):
      reads.append((hook, tuple(chunk_ids)))
      return super().read_chunks(hook, chunk_ids)

  batches = open_stream(Logging(96), ("h", "w"), config(8, mix_chunks=2))
  for _ in range(6):
    next(batches)
  batches.close()
  whole = len(reads) // 2 * 2
  assert whole >= 12
  for first, second in zip(reads[:whole:2], reads[1:whole:2], strict=True):
    assert (first[0], second[0]) == ("h", "w") and first[1] == second[1]
