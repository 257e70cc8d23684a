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

The grid runs over items (`work_list`), as many as the active pairs make them;
`gather_sums_kernel` is what is done for one.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sae_jax import errors
from sae_jax.ops import tpu_chips
from sae_jax.ops.pair_grads import active_pairs, gather_sums_kernel, work_list

_LANES = gather_sums_kernel.LANES
_SUBLANES = gather_sums_kernel.SUBLANES
# Of buffers: chunks of 128 rows of 16 KiB keep HBM busy, more gains nothing.
_VMEM_BYTES = 32 << 20
_MOST = 128  # pairs of a chunk, owners of a tile


def row_tiles(array_RD: jax.Array) -> jax.Array:
  """[R, D] as [R, S, 128]: each row contiguous, in whole registers.

  The layout of a matrix in HBM interleaves 8 rows (16 of bfloat16), which a
  copy of single rows cannot address. A row is padded to 1024 float32 or 2048
  bfloat16; the latter become the former where that is not longer.
  """
  width = array_RD.shape[1]
  whole = pl.cdiv(width, _SUBLANES * _LANES)
  is_half = array_RD.dtype == jnp.bfloat16 and whole > 1
  sublanes = 16 * pl.cdiv(whole, 2) if is_half else _SUBLANES * whole
  array_RD = array_RD.astype(jnp.bfloat16 if is_half else jnp.float32)
  padding = sublanes * _LANES - width
  return jnp.pad(array_RD, ((0, 0), (0, padding))).reshape(-1, sublanes, _LANES)


def _sublanes(width: int) -> int:
  """Of a float32 row."""
  return _SUBLANES * pl.cdiv(width, _SUBLANES * _LANES)


def sizes_for(
  sources: Sequence[jax.Array], owned: Sequence[int], widths: Sequence[int]
) -> work_list.Sizes:
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
    4 * _LANES * (2 * pl.cdiv(width, _LANES) + _sublanes(width))
    for width in (*owned, *widths)
  )
  budget = min(tpu_chips.target().kernel_vmem_bytes * 3 // 4, _VMEM_BYTES)
  size = _MOST
  while size > gather_sums_kernel.UNROLL and size * per_pair > budget:
    size //= 2
  return work_list.Sizes(size, size)


def walk(
  addends: gather_sums_kernel.Addends,
  pairs: active_pairs.Pairs,
  sources: Sequence[jax.Array],
  owned: Sequence[jax.Array],
  owners: int,
  widths: Sequence[int],
  *,
  sizes: work_list.Sizes,
  interpret: bool,
  name: str,
) -> list[jax.Array]:
  """Sums over every owner's pairs of `addends`, float32 [owners, width] each.

  Args:
    addends: called while the kernel is traced.
    pairs: a multiple of `sizes.chunk` long.
    sources: [R, S, 128] from `row_tiles`; row `source[p]` of each is read.
    owned: float32 [owners, width]; row `owner[p]` of each is read.
    owners: O; those without pairs get zeros.
    widths: of the sums.
    sizes: multiples of 8.
    interpret: run without a TPU.
    name: of the kernel in profiles.

  Raises:
    errors.InputError: the work list would not fit the chip's scalar memory.
  """
  items = work_list.make_items(pairs, owners, sizes)
  # Two numbers each, prefetched to scalar memory, of which they may take half.
  most = tpu_chips.target().smem_bytes // 2 // 8
  if items.tile_I.size > most:
    raise errors.InputError(
      f"{name}: {pairs.owner_P.size} pairs of rows and active latents on a"
      f" device make {items.tile_I.size} items of work; at most {most}: take"
      " fewer rows per step, or more devices for them (mesh.data)"
    )
  chunks = pairs.owner_P.size // sizes.chunk

  def listed(array_P):
    return array_P.reshape(chunks, 1, sizes.chunk)

  (sums,) = pl.pallas_call(
    functools.partial(gather_sums_kernel.kernel, sizes=sizes, addends=addends),
    grid_spec=_grid(items, chunks, sources, owned, widths, sizes),
    out_shape=[
      [jax.ShapeDtypeStruct((owners, w), jnp.float32) for w in widths]
    ],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary"),
      vmem_limit_bytes=tpu_chips.target().kernel_vmem_bytes,
    ),
    # Without the pairs: from all of them on one device to 1 in 64 is active.
    cost_estimate=pl.CostEstimate(
      flops=0,
      transcendentals=0,
      bytes_accessed=sum(array.nbytes for array in owned)
      + 4 * owners * sum(widths),
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


def _grid(items, chunks, sources, owned, widths, sizes):
  """What an item reads and writes, and what stays in the core between items."""

  def item_of(part, step, bounds):
    # Steps past the end of the shorter part stay at its last item.
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

  def tile_rows(width):
    # One more owner, for the pairs of a chunk that are another tile's.
    shape = ((sizes.tile + 1) * _sublanes(width), _LANES)
    return pltpu.VMEM(shape, jnp.float32)

  def buffer(source):
    return pltpu.VMEM((2 * sizes.chunk, *source.shape[1:]), source.dtype)

  return pltpu.PrefetchScalarGridSpec(
    num_scalar_prefetch=3,
    grid=(work_list.PARTS, items.longest),
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
  )


def gather_sums(
  pairs: active_pairs.Pairs,
  rows_RSL: jax.Array,
  owners: int,
  width: int,
  *,
  sizes: work_list.Sizes,
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
