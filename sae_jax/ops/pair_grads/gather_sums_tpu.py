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
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sae_jax import errors
from sae_jax.ops import tpu_chips
from sae_jax.ops.pair_grads import active_pairs

LANES = 128
_SUBLANES = 8
_UNROLL = 8  # pairs per loop iteration
# Two halves of the tiles, one for each core of a v4, v5p or v7x chip.
_PARTS = 2
# Of buffers: chunks of 128 rows of 16 KiB keep HBM busy, more gains nothing.
_VMEM_BYTES = 32 << 20
_MOST = 128  # pairs of a chunk, owners of a tile
# The work list is prefetched to scalar memory, 1 MiB.
_MOST_PAIRS = 1 << 22


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


def sizes_for(
  sources: Sequence[jax.Array], owned: Sequence[int], widths: Sequence[int]
) -> Sizes:
  """The largest chunk and tile, equal, whose buffers fit the chip's VMEM.

  Args:
    sources: from `row_tiles`.
    owned: width of every array of owners that is read.
    widths: width of every sum.
  """
  # Two chunks of rows.
  per_pair = sum(2 * s.dtype.itemsize * math.prod(s.shape[1:]) for s in sources)
  # A tile twice on its way from or to HBM, once as rows; in float32.
  per_pair += sum(
    4 * LANES * (2 * pl.cdiv(width, LANES) + _padded(width))
    for width in (*owned, *widths)
  )
  budget = min(tpu_chips.target().kernel_vmem_bytes * 3 // 4, _VMEM_BYTES)
  size = _MOST
  while size > _UNROLL and size * per_pair > budget:
    size //= 2
  return Sizes(size, size)


def _padded(width: int) -> int:
  """Sublanes of a float32 row."""
  return _SUBLANES * pl.cdiv(width, _SUBLANES * LANES)


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


# (coefficient, rows of the sources, rows of the owner) -> what is added to each
# of the owner's sums; rows are float32 [S, 128].
Addends = Callable[
  [jax.Array, Sequence[jax.Array], Sequence[jax.Array]], Sequence[jax.Array]
]


def walk(
  addends: Addends,
  pairs: active_pairs.Pairs,
  sources: Sequence[jax.Array],
  owned: Sequence[jax.Array],
  owners: int,
  widths: Sequence[int],
  *,
  sizes: Sizes,
  interpret: bool,
  name: str,
) -> list[jax.Array]:
  """Sums over every owner's pairs of `addends`, float32 [owners, width] each.

  Args:
    addends: called while the kernel is traced.
    pairs: at most 4,194,304, a multiple of `sizes.chunk`.
    sources: [R, S, 128] from `row_tiles`; row `source[p]` of each is read.
    owned: float32 [owners, width]; row `owner[p]` of each is read.
    owners: O; those without pairs get zeros.
    widths: of the sums.
    sizes: multiples of 8.
    interpret: run without a TPU.
    name: of the kernel in profiles.

  Raises:
    errors.InputError: there are more pairs.
  """
  if pairs.owner_P.shape[0] > _MOST_PAIRS:
    raise errors.InputError(
      f"{name}: {pairs.owner_P.shape[0]} pairs of rows and active latents on a"
      f" device; at most {_MOST_PAIRS}: take fewer rows per step, or more"
      " devices for them (mesh.data)"
    )
  items = make_items(pairs, owners, sizes)
  chunks = pairs.owner_P.shape[0] // sizes.chunk

  def item_of(part, step, bounds):
    return jnp.minimum(bounds[part] + step, bounds[part + 1] - 1)

  def tile_block(width):
    def block(part, step, tile_I, chunk_I, bounds):
      del chunk_I
      return tile_I[item_of(part, step, bounds)], 0

    return pl.BlockSpec((sizes.tile, width), block)

  def chunk_block(ahead):
    def block(part, step, tile_I, chunk_I, bounds):
      del tile_I
      chunk = chunk_I[item_of(part, step, bounds)] + ahead
      return jnp.minimum(chunk, chunks - 1), 0, 0

    return pl.BlockSpec((1, 1, sizes.chunk), block, memory_space=pltpu.SMEM)

  def listed(array_P):
    return array_P.reshape(chunks, 1, sizes.chunk)

  def tile_rows(width):
    # One more owner, for the pairs of a chunk that are another tile's.
    shape = ((sizes.tile + 1) * _padded(width), LANES)
    return pltpu.VMEM(shape, jnp.float32)

  def buffer(source):
    return pltpu.VMEM((2 * sizes.chunk, *source.shape[1:]), source.dtype)

  (sums,) = pl.pallas_call(
    functools.partial(_kernel, sizes=sizes, addends=addends),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=3,
      grid=(_PARTS, items.longest),
      in_specs=[
        *(chunk_block(ahead) for ahead in (0, 1, 0, 0)),
        [pl.BlockSpec(memory_space=pl.ANY) for _ in sources],
        [tile_block(array.shape[1]) for array in owned],
      ],
      out_specs=[[tile_block(width) for width in widths]],
      scratch_shapes=[
        [buffer(source) for source in sources],
        [tile_rows(array.shape[1]) for array in owned],
        [tile_rows(width) for width in widths],
        pltpu.SemaphoreType.DMA((len(sources), 2)),
      ],
    ),
    out_shape=[
      [jax.ShapeDtypeStruct((owners, w), jnp.float32) for w in widths]
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary"),
      vmem_limit_bytes=tpu_chips.target().kernel_vmem_bytes,
    ),
    interpret=interpret,
    name=name,
  )(
    *(items.tile_I, items.chunk_I, items.bounds),
    *(listed(pairs.source_P), listed(pairs.source_P)),
    *(listed(pairs.owner_P), listed(pairs.coef_P)),
    list(sources),
    list(owned),
  )
  return sums


def gather_sums(
  pairs: active_pairs.Pairs,
  rows_RSL: jax.Array,
  owners: int,
  width: int,
  *,
  sizes: Sizes,
  interpret: bool,
) -> jax.Array:
  """`out[o] = Σ_{p: owner[p] = o} coef[p] · rows[source[p]]`; see `walk`."""
  (out,) = walk(
    lambda coef, rows, _: (coef * rows[0],),
    pairs,
    [rows_RSL],
    [],
    owners,
    [width],
    sizes=sizes,
    interpret=interpret,
    name="gather_sums",
  )
  return out


def _kernel(
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
    for u in range(_UNROLL):
      p = group * _UNROLL + u
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

  lax.fori_loop(0, chunk // _UNROLL, start, 0)


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
    return pl.ds(pl.multiple_of(local * sublanes, _SUBLANES), sublanes)

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
    for u in range(_UNROLL):
      p = group * _UNROLL + u
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
  lax.fori_loop(0, sizes.chunk // _UNROLL, add, (first, sums))


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
    rows_ref[...] = jnp.zeros_like(
      rows_ref
    )  # what the padding is multiplied by
  for in_matrix, in_rows in _columns(matrix_ref, rows_ref):
    rows_ref[in_rows] = matrix_ref[in_matrix]
