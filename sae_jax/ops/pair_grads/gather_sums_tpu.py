# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""TPU kernel: sums of gathered rows, one owner per sum.

`out[o] = Σ_{p: owner[p] = o} coef[p] · rows[source[p]]`.

Pairs come sorted by owner. The rows of a chunk of pairs are copied from HBM one
by one while the chunk before is summed, so that no gathered array exists and
every row of the output is written once. An owner's pairs are added in order, in
float32, by a vector unit: with the few pairs per owner that a top-k leaves (4
at B=8192, K=64, F=131072), a product with a one-hot [128, pairs] matrix would
be 127/128 zeros, three times over for float32 factors, and would not be faster.

The grid runs over items: a tile of owners and a chunk of pairs that overlap.
Its length is only known at run time, so that work follows the active pairs.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sae_jax.ops.pair_grads import active_pairs

LANES = 128
_UNROLL = 8  # pairs per loop iteration
# Two halves of the tiles, one for each core of a v4, v5p or v7x chip.
_PARTS = 2
# Of buffers; a v4 core has 16 MiB and the compiler wants some of it.
_VMEM_BYTES = 10 << 20
_MOST = 128  # pairs of a chunk, owners of a tile


@dataclasses.dataclass(frozen=True)
class Sizes:
  """`chunk` pairs are in flight at once, `tile` owners are finished at once."""

  chunk: int
  tile: int


def row_tiles(array_RD: jax.Array) -> jax.Array:
  """[R, D] as [R, S, 128]: each row contiguous, in whole registers.

  The layout of a matrix in HBM interleaves 8 rows (16 of bfloat16), which a
  copy of single rows cannot address. A row is padded to 1024 float32 or 2048
  bfloat16; the latter become the former where that is not longer.
  """
  width = array_RD.shape[1]
  whole = pl.cdiv(width, 8 * LANES)
  is_half = array_RD.dtype == jnp.bfloat16 and whole > 1
  sublanes = 16 * pl.cdiv(whole, 2) if is_half else 8 * whole
  array_RD = array_RD.astype(jnp.bfloat16 if is_half else jnp.float32)
  padding = sublanes * LANES - width
  return jnp.pad(array_RD, ((0, 0), (0, padding))).reshape(-1, sublanes, LANES)


def sizes_for(sublanes: int, itemsize: int, sources: int = 1) -> Sizes:
  """The largest chunk and tile, equal, whose buffers fit."""
  # Two chunks of rows; the tile's sums, and its output twice, in float32.
  per_pair = sources * sublanes * LANES * (2 * itemsize + 3 * 4)
  size = _MOST
  while size > _UNROLL and size * per_pair > _VMEM_BYTES:
    size //= 2
  return Sizes(size, size)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Items:
  """The work list; `tile` and `chunk` of an item, `parts` ranges of items."""

  tile_I: jax.Array
  chunk_I: jax.Array
  bounds: jax.Array  # [_PARTS + 1]
  longest: jax.Array  # items of the longer part


def make_items(pairs: active_pairs.Pairs, owners: int, sizes: Sizes) -> Items:
  """Every tile of owners with each chunk that has pairs of it, at least one."""
  tiles = pl.cdiv(owners, sizes.tile)
  chunks = pairs.owner_P.shape[0] // sizes.chunk
  edge_T = sizes.tile * jnp.arange(tiles + 1, dtype=jnp.int32)
  edge_T = jnp.searchsorted(pairs.owner_P, edge_T).astype(jnp.int32)
  # The last tile may reach past the last owner, to where nobody owns pairs.
  edge_T = jnp.minimum(edge_T, pairs.count)
  start_T, stop_T = edge_T[:-1], edge_T[1:]
  last = jnp.maximum(pairs.count - 1, 0) // sizes.chunk
  first_T = jnp.minimum(start_T // sizes.chunk, last)
  final_T = jnp.where(stop_T > start_T, (stop_T - 1) // sizes.chunk, first_T)
  end_T = jnp.cumsum(final_T - first_T + 1)
  item_I = jnp.arange(tiles + chunks, dtype=jnp.int32)
  tile_I = jnp.searchsorted(end_T, item_I, side="right").astype(jnp.int32)
  tile_I = jnp.minimum(tile_I, tiles - 1)
  begin_T = end_T - (final_T - first_T + 1)
  chunk_I = first_T[tile_I] + item_I - begin_T[tile_I]
  bounds = jnp.stack([jnp.zeros_like(last), end_T[(tiles - 1) // 2], end_T[-1]])
  return Items(
    tile_I=tile_I,
    chunk_I=jnp.minimum(chunk_I, last),
    bounds=bounds,
    longest=jnp.max(jnp.diff(bounds)),
  )


def gather_sums(
  pairs: active_pairs.Pairs,
  rows_RSL: jax.Array,
  owners: int,
  width: int,
  *,
  sizes: Sizes,
  interpret: bool,
) -> jax.Array:
  """`out[o] = Σ_{p: owner[p] = o} coef[p] · rows[source[p]]`, [owners, width].

  Args:
    pairs: at most about 4 million, a multiple of `sizes.chunk`.
    rows_RSL: from `row_tiles`.
    owners: rows of the output, float32; those without pairs are zero.
    width: columns of the output.
    sizes: multiples of 8.
    interpret: run without a TPU.
  """
  items = make_items(pairs, owners, sizes)
  chunks = pairs.owner_P.shape[0] // sizes.chunk
  sublanes = rows_RSL.shape[1]

  def item_of(part, step, bounds):
    return jnp.minimum(bounds[part] + step, bounds[part + 1] - 1)

  def tile_block(part, step, tile_I, chunk_I, bounds):
    del chunk_I
    return tile_I[item_of(part, step, bounds)], 0

  def chunk_block(ahead):
    def block(part, step, tile_I, chunk_I, bounds):
      del tile_I
      chunk = chunk_I[item_of(part, step, bounds)] + ahead
      return jnp.minimum(chunk, chunks - 1), 0, 0

    return pl.BlockSpec((1, 1, sizes.chunk), block, memory_space=pltpu.SMEM)

  def listed(array_P):
    return array_P.reshape(chunks, 1, sizes.chunk)

  return pl.pallas_call(
    functools.partial(_kernel, sizes=sizes, width=width),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=3,
      grid=(_PARTS, items.longest),
      in_specs=[
        *(chunk_block(ahead) for ahead in (0, 1, 0, 0)),
        pl.BlockSpec(memory_space=pl.ANY),
      ],
      out_specs=pl.BlockSpec((sizes.tile, width), tile_block),
      scratch_shapes=[
        pltpu.VMEM((2 * sizes.chunk, sublanes, LANES), rows_RSL.dtype),
        # One more owner, for the pairs of a chunk that are another tile's.
        pltpu.VMEM(((sizes.tile + 1) * sublanes, LANES), jnp.float32),
        pltpu.SemaphoreType.DMA((2,)),
      ],
    ),
    out_shape=jax.ShapeDtypeStruct((owners, width), jnp.float32),
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary")
    ),
    interpret=interpret,
    name="gather_sums",
  )(
    *(items.tile_I, items.chunk_I, items.bounds),
    *(listed(pairs.source_P), listed(pairs.source_P)),
    *(listed(pairs.owner_P), listed(pairs.coef_P)),
    rows_RSL,
  )


def _kernel(
  tile_ref,
  chunk_ref,
  bounds_ref,
  source_ref,
  next_source_ref,
  owner_ref,
  coef_ref,
  rows_ref,
  out_ref,
  buffer_ref,
  sums_ref,
  semaphores,
  *,
  sizes,
  width,
):
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
    fetch = functools.partial(_fetch, rows_ref, buffer_ref, semaphores, sizes)

    @pl.when(step == 0)
    def _():
      fetch(source_ref, slot)

    @pl.when((step == 0) | (chunk_ref[before] != chunk))
    def _():
      # Chunks of a part follow one another; the last item has its last one.
      @pl.when(chunk < chunk_ref[end - 1])
      def _():
        fetch(next_source_ref, 1 - slot)

      here = buffer_ref.at[pl.ds(slot * sizes.chunk, sizes.chunk)]
      # Waits for as many bytes as the whole chunk has.
      pltpu.make_async_copy(here, here, semaphores.at[slot]).wait()

    @pl.when((step == 0) | (tile_ref[before] != tile))
    def _():
      sums_ref[...] = jnp.zeros_like(sums_ref)

    _add_chunk(owner_ref, coef_ref, buffer_ref, sums_ref, tile, slot, sizes)

    @pl.when((item == end - 1) | (tile_ref[after] != tile))
    def _():
      _write_tile(sums_ref, out_ref, sizes.tile, width)


def _fetch(rows_ref, buffer_ref, semaphores, sizes, source_ref, slot):
  """Starts a chunk's row copies, all on one semaphore."""

  def start(group, carry):
    for u in range(_UNROLL):
      p = group * _UNROLL + u
      pltpu.make_async_copy(
        rows_ref.at[source_ref[0, 0, p]],
        buffer_ref.at[slot * sizes.chunk + p],
        semaphores.at[slot],
      ).start()
    return carry

  lax.fori_loop(0, sizes.chunk // _UNROLL, start, 0)


def _add_chunk(owner_ref, coef_ref, buffer_ref, sums_ref, tile, slot, sizes):
  """Adds the chunk's pairs to the tile's sums.

  The running sum of an owner stays in registers and is written at every pair.
  """
  sublanes = buffer_ref.shape[1]

  def place(owner):
    local = owner - tile * sizes.tile
    mine = (local >= 0) & (local < sizes.tile)
    local = jnp.where(mine, local, sizes.tile)
    return pl.ds(pl.multiple_of(local * sublanes, 8), sublanes)

  def add(group, carry):
    previous, sum_SL = carry
    for u in range(_UNROLL):
      p = group * _UNROLL + u
      owner = owner_ref[0, 0, p]
      row_SL = buffer_ref[slot * sizes.chunk + p].astype(jnp.float32)
      sum_SL = jnp.where(owner == previous, sum_SL, 0.0)
      sum_SL = sum_SL + coef_ref[0, 0, p] * row_SL
      sums_ref[place(owner), :] = sum_SL
      previous = owner
    return previous, sum_SL

  first = owner_ref[0, 0, 0]
  carry = first, sums_ref[place(first), :]
  lax.fori_loop(0, sizes.chunk // _UNROLL, add, carry)


def _write_tile(sums_ref, out_ref, tile, width):
  """From one owner after another to the layout of a matrix."""
  sublanes = sums_ref.shape[0] // (tile + 1)
  for column in range(0, width, LANES):
    wide = min(LANES, width - column)
    part = sums_ref[pl.ds(column // LANES, tile, stride=sublanes), :]
    out_ref[:, column : column + wide] = part[:, :wide]
