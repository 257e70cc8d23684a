# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The body of the TPU kernel of `gather_sums_tpu`: one item of its work list.

Rows of owners have two layouts. In HBM they are those of a matrix, 8 rows to a
register; what pairs are added to is a row in registers of its own, as many
sublanes after one another as it takes.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128
SUBLANES = 8
UNROLL = 8  # pairs per loop iteration

# (coefficient, rows of the sources, rows of the owner) -> what is added to each
# of the owner's sums; rows are float32 [S, 128].
Addends = Callable[
  [jax.Array, Sequence[jax.Array], Sequence[jax.Array]], Sequence[jax.Array]
]


def kernel(
  tile_ref,
  chunk_ref,
  bounds_ref,
  source_ref,
  next_source_ref,
  owner_ref,
  coef_ref,
  source_refs,
  owned_refs,
  out_refs,
  buffer_refs,
  owned_rows_refs,
  sums_refs,
  semaphores,
  *,
  sizes,
  addends,
):
  """An item of a part: adds its chunk of pairs to the sums of its tile.

  The first item of a chunk waits for the chunk's rows and starts copying those
  of the next one; the first and the last of a tile clear and write its sums.

  Args:
    tile_ref: of every item, like the next one.
    chunk_ref: of every item.
    bounds_ref: of the parts.
    source_ref: the chunk's rows of the sources.
    next_source_ref: those of the chunk after it.
    owner_ref: the owners of its pairs.
    coef_ref: their coefficients.
    source_refs: in HBM, [R, S, 128].
    owned_refs: the tile's rows, as a matrix.
    out_refs: its sums, as a matrix.
    buffer_refs: two chunks of rows of every source.
    owned_rows_refs: the tile's rows, each in registers of its own.
    sums_refs: its sums, likewise.
    semaphores: of every source and chunk in flight.
    sizes: `work_list.Sizes`.
    addends: what a pair adds.
  """
  step = pl.program_id(1)
  begin = bounds_ref[pl.program_id(0)]
  end = bounds_ref[pl.program_id(0) + 1]
  item = begin + step

  @pl.when(item < end)
  def _():
    tile, chunk = tile_ref[item], chunk_ref[item]
    before = jnp.maximum(item - 1, 0)
    after = jnp.minimum(item + 1, end - 1)
    slot = lax.rem(chunk, 2)
    start = functools.partial(
      _start_copies, source_refs, buffer_refs, semaphores, sizes.chunk
    )

    @pl.when(step == 0)
    def _():
      start(source_ref, slot)

    @pl.when((step == 0) | (chunk_ref[before] != chunk))
    def _():
      # Chunks of a part follow one another; the last item has its last one.
      @pl.when(chunk < chunk_ref[end - 1])
      def _():
        start(next_source_ref, 1 - slot)

      _wait_for_copies(buffer_refs, semaphores, sizes.chunk, slot)

    @pl.when((step == 0) | (tile_ref[before] != tile))
    def _():
      for sums_ref in sums_refs:
        sums_ref[...] = jnp.zeros_like(sums_ref)
      for owned_ref, rows_ref in zip(owned_refs, owned_rows_refs, strict=True):
        _matrix_to_rows(owned_ref, rows_ref)

    _add_chunk(
      *(owner_ref, coef_ref, buffer_refs, owned_rows_refs, sums_refs),
      *(tile, slot, sizes, addends),
    )

    @pl.when((item == end - 1) | (tile_ref[after] != tile))
    def _():
      for sums_ref, out_ref in zip(sums_refs, out_refs, strict=True):
        _rows_to_matrix(sums_ref, out_ref)


def _start_copies(source_refs, buffer_refs, semaphores, chunk, place_ref, slot):
  """Starts a chunk's row copies, those of one source on one semaphore."""

  def start(group, carry):
    for u in range(UNROLL):
      p = group * UNROLL + u
      row = place_ref[0, 0, p]
      for i, (source_ref, buffer_ref) in enumerate(
        zip(source_refs, buffer_refs, strict=True)
      ):
        pltpu.make_async_copy(
          source_ref.at[row],
          buffer_ref.at[slot * chunk + p],
          semaphores.at[i, slot],
        ).start()
    return carry

  lax.fori_loop(0, chunk // UNROLL, start, 0)


def _wait_for_copies(buffer_refs, semaphores, chunk, slot):
  for i, buffer_ref in enumerate(buffer_refs):
    here = buffer_ref.at[pl.ds(slot * chunk, chunk)]
    # Waits for as many bytes as the whole chunk has.
    pltpu.make_async_copy(here, here, semaphores.at[i, slot]).wait()


def _add_chunk(
  owner_ref,
  coef_ref,
  buffer_refs,
  owned_rows_refs,
  sums_refs,
  tile,
  slot,
  sizes,
  addends,
):
  """Adds the chunk's pairs to the tile's sums.

  The running sums of an owner stay in registers, so that nothing waits for what
  was just stored; they are written at every pair, which needs no branch.
  """
  widest = max(ref.shape[0] for ref in sums_refs) // (sizes.tile + 1)

  def rows_of(ref, local):
    sublanes = ref.shape[0] // (sizes.tile + 1)
    return pl.ds(pl.multiple_of(local * sublanes, SUBLANES), sublanes)

  def place(owner):
    local = owner - tile * sizes.tile
    mine = (local >= 0) & (local < sizes.tile)
    return jnp.where(mine, local, sizes.tile)

  def load(ref, local):
    return ref[rows_of(ref, local), :]

  def source_row(ref, p):
    row_SL = ref[slot * sizes.chunk + p].astype(jnp.float32)
    return row_SL[:widest]  # bfloat16 rows may have more padding

  def add(group, carry):
    previous, sums = carry
    for u in range(UNROLL):
      p = group * UNROLL + u
      owner = owner_ref[0, 0, p]
      local = place(owner)
      added = addends(
        coef_ref[0, 0, p],
        [source_row(ref, p) for ref in buffer_refs],
        [load(ref, local) for ref in owned_rows_refs],
      )
      sums = [
        jnp.where(owner == previous, sum_SL, 0.0) + added_SL
        for sum_SL, added_SL in zip(sums, added, strict=True)
      ]
      for ref, sum_SL in zip(sums_refs, sums, strict=True):
        ref[rows_of(ref, local), :] = sum_SL
      previous = owner
    return previous, sums

  first = owner_ref[0, 0, 0]
  sums = [load(ref, place(first)) for ref in sums_refs]
  lax.fori_loop(0, sizes.chunk // UNROLL, add, (first, sums))


def _columns(matrix_ref, rows_ref):
  """The same 128 columns in the layout of a matrix and in that of rows."""
  tile, width = matrix_ref.shape
  sublanes = rows_ref.shape[0] // (tile + 1)
  for column in range(0, width, LANES):
    wide = min(LANES, width - column)
    yield (
      (slice(None), pl.ds(column, wide)),
      (pl.ds(column // LANES, tile, stride=sublanes), pl.ds(0, wide)),
    )


def _rows_to_matrix(rows_ref, matrix_ref):
  for in_matrix, in_rows in _columns(matrix_ref, rows_ref):
    matrix_ref[in_matrix] = rows_ref[in_rows]


def _matrix_to_rows(matrix_ref, rows_ref):
  tile, width = matrix_ref.shape
  if rows_ref.size != (tile + 1) * width:
    # What the padding of a pair's row is multiplied by.
    rows_ref[...] = jnp.zeros_like(rows_ref)
  for in_matrix, in_rows in _columns(matrix_ref, rows_ref):
    rows_ref[in_rows] = matrix_ref[in_matrix]
