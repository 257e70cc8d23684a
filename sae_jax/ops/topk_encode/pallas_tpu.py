# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""TPU: the encoder product and a first selection in one kernel.

Pre-activations never leave the chip's vector memory. Latent f belongs to bucket
f mod L, and every row keeps the K' best latents of each bucket, so that the
selection is compare-and-select on whole registers: a bucket is a lane. What was
dropped is bounded, see `candidates.Candidates`.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sae_jax.ops import dispatch, tpu_chips
from sae_jax.ops.topk_encode import buckets as buckets_lib
from sae_jax.ops.topk_encode import candidates as candidates_lib
from sae_jax.ops.topk_encode import xla

_LANES = 128
_SUBLANES = 8
# Kept in place of -inf, so that what is masked still precedes an empty place.
_LOWEST = float(jnp.finfo(jnp.float32).min)


@dataclasses.dataclass(frozen=True)
class Buckets:
  """`count` (L) buckets, of which the `kept` (K') best latents are kept."""

  count: int
  kept: int


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Rows, latents and inner dimension of a step; copies of the output."""

  rows: int
  latents: int
  inner: int
  out_buffers: int


def choose_buckets(rows: int, k: int, latents: int) -> Buckets | None:
  """The cheapest buckets with rare misses; None if keeping all is as cheap.

  By a rough model, K'·(F + k·L): the kernel compares every latent with K'
  others, and what follows grows with the K'·L that are kept. It balances the
  two and has not been timed.
  """
  best = None
  for count in (128, 256, 512, 1024, 2048):
    # More than half of the latents is no selection.
    for kept in range(-(-k // count), latents // 2 // count + 1):
      if buckets_lib.odds(k, rows, kept, count) <= buckets_lib.ODDS:
        cost = kept * (latents + k * count)
        if best is None or cost < best[0]:
          best = cost, Buckets(count, kept)
        break
  return best and best[1]


def _step_bytes(tiles: Tiles, buckets: Buckets, item_bytes: int) -> int:
  """Vector memory of a step.

  Two of each operand, as the next ones are fetched meanwhile, and what the
  compiler copies: transposed ones, and of float32 the bfloat16 parts. For v5e
  it took 1.6 copies more than three of float32 operands.
  """
  copies = 5 if item_bytes == 4 else 3
  operands = copies * (tiles.rows + tiles.latents) * tiles.inner * item_bytes
  sums = 2 * tiles.rows * tiles.latents * 4
  kept = tiles.rows * (buckets.count * buckets.kept * 8 + _LANES * 4)
  return operands + sums + tiles.out_buffers * kept


def choose_tiles(
  chip: tpu_chips.Chip,
  rows: int,
  latents: int,
  d_model: int,
  item_bytes: int,
  buckets: Buckets,
) -> Tiles:
  """The tiles that fit and cost the least time outside the product."""
  inners = [d_model] + [
    d_model // n
    for n in range(2, d_model // _LANES + 1)
    if d_model % (n * _LANES) == 0
  ]
  options = itertools.product(
    (1024, 512, 256, 128, 64, 32, 16), (8, 4, 2, 1), inners, (2, 1)
  )
  best = None
  for most_rows, multiple, inner, out_buffers in options:
    tile = min(most_rows, rows), multiple * buckets.count, inner, out_buffers
    tiles = Tiles(*tile)
    if tiles.latents > max(2048, buckets.count) or tiles.latents > latents:
      continue
    if _step_bytes(tiles, buckets, item_bytes) > chip.kernel_vmem_bytes:
      continue
    cost = _seconds(chip, tiles, rows, latents, d_model, item_bytes, buckets)
    if best is None or cost < best[0]:
      best = cost, tiles
  assert best, (chip.name, d_model, item_bytes, buckets)
  return best[1]


def _seconds(chip, tiles, rows, latents, d_model, item_bytes, buckets):
  """A model of the time of one core, for comparing tiles only."""
  row_tiles = -(-rows // tiles.rows)
  row_tiles = -(-row_tiles // chip.cores)
  latent_tiles = -(-latents // tiles.latents)
  inner_tiles = d_model // tiles.inner
  computed = row_tiles * tiles.rows * latent_tiles * tiles.latents
  # Full float32 precision takes six bfloat16 products.
  passes = 6 if item_bytes == 4 else 1
  product = passes * 2 * computed * d_model / chip.flops_per_s
  # Rows stay in place while latents pass by if their inner dimension is whole.
  fetches = latent_tiles if inner_tiles > 1 else 1
  moved = (
    item_bytes
    * row_tiles
    * d_model
    * (fetches * tiles.rows + latent_tiles * tiles.latents)
  )
  kept = row_tiles * tiles.rows * buckets.count * buckets.kept * 8
  waits = kept if tiles.out_buffers == 1 else 0
  moved += kept - waits
  # Reading and writing the sums: 516 of 6763 bundles of a [512, 1024] step.
  sums = computed * (inner_tiles - 1) * 1e-12
  steps = row_tiles * latent_tiles * inner_tiles * 0.35e-6
  per_s = chip.hbm_bytes_per_s
  return max(product, moved / per_s) + waits / per_s + sums + steps


def _keep(v_ref, id_ref, dropped_ref, sums_ref, bias_ref, first, last, at, L):
  """Inserts the sums of 8 rows into their buckets, in order of latent."""
  kept = v_ref.shape[1] // L
  rows = pl.ds(pl.multiple_of(at * _SUBLANES, _SUBLANES), _SUBLANES)
  dropped = dropped_ref[rows, :]
  for lane in range(0, L, _LANES):
    places = [pl.ds(q * L + lane, _LANES) for q in range(kept)]
    best = tuple((v_ref[rows, at], id_ref[rows, at]) for at in places)
    for c in range(sums_ref.shape[1] // L):
      columns = pl.ds(c * L + lane, _LANES)
      value = sums_ref[rows, columns] + bias_ref[:, columns]
      value = jnp.where(jnp.isnan(value), jnp.inf, value)
      value = jnp.maximum(value, _LOWEST)
      if last is not None:
        column = lax.broadcasted_iota(jnp.int32, value.shape, 1)
        value = jnp.where(column < last - c * L - lane, value, -jnp.inf)
      tile = jnp.full(value.shape, first + c, jnp.int32)
      best, (value, _) = buckets_lib.insert(best, value, tile)
      dropped = jnp.maximum(dropped, value)
    for place, (value, tile) in zip(places, best, strict=True):
      v_ref[rows, place] = value
      id_ref[rows, place] = tile
  dropped_ref[rows, :] = dropped


def _kernel(
  x_ref, w_ref, bias_ref, v_ref, id_ref, dropped_ref, sums_ref, *, L, latents
):
  column, inner = pl.program_id(1), pl.program_id(2)

  @pl.when((column == 0) & (inner == 0))
  def _():
    v_ref[...] = jnp.full(v_ref.shape, -jnp.inf, v_ref.dtype)
    id_ref[...] = jnp.zeros(id_ref.shape, id_ref.dtype)
    dropped_ref[...] = jnp.full(dropped_ref.shape, -jnp.inf, v_ref.dtype)

  product = lax.dot_general(
    x_ref[...],
    w_ref[...],
    (((1,), (1,)), ((), ())),
    # bfloat16 products are exact in float32.
    precision=lax.Precision.HIGHEST if x_ref.dtype == jnp.float32 else None,
    preferred_element_type=jnp.float32,
  )

  @pl.when(inner == 0)
  def _():
    sums_ref[...] = product

  @pl.when(inner > 0)
  def _():
    sums_ref[...] += product

  @pl.when(inner == pl.num_programs(2) - 1)
  def _():
    tile = sums_ref.shape[1]
    first = column * (tile // L)
    # What is past the end of w is not defined.
    last = None if latents % tile == 0 else latents - column * tile
    refs = v_ref, id_ref, dropped_ref, sums_ref, bias_ref

    @pl.loop(0, sums_ref.shape[0] // _SUBLANES)
    def _(at):
      _keep(*refs, first, last, at, L)


def _select(
  x_BD: jax.Array,
  w_enc_FD: jax.Array,
  b_enc_F: jax.Array,
  buckets: Buckets,
  tiles: Tiles,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The kernel: kept values, their f // L, and the largest dropped ones.

  The former are [B, K'·L], place by place, and of each place bucket by bucket;
  the last is the maximum of all buckets that share a lane, [B, 128].
  B must be a multiple of 16; `tiles` may divide B and F or not.
  """
  (rows, d_model), latents = x_BD.shape, w_enc_FD.shape[0]
  wide = buckets.count * buckets.kept
  grid = (
    pl.cdiv(rows, tiles.rows),
    pl.cdiv(latents, tiles.latents),
    d_model // tiles.inner,
  )

  def out(width):
    return pl.BlockSpec(
      (tiles.rows, width),
      lambda i, j, d: (i, 0),
      pipeline_mode=pl.Buffered(tiles.out_buffers),
    )

  values_BC, ids_BC, dropped_BN = pl.pallas_call(
    functools.partial(_kernel, L=buckets.count, latents=latents),
    grid=grid,
    in_specs=[
      pl.BlockSpec((tiles.rows, tiles.inner), lambda i, j, d: (i, d)),
      pl.BlockSpec((tiles.latents, tiles.inner), lambda i, j, d: (j, d)),
      pl.BlockSpec((1, tiles.latents), lambda i, j, d: (0, j)),
    ],
    out_specs=[out(wide), out(wide), out(_LANES)],
    out_shape=[
      jax.ShapeDtypeStruct((rows, wide), jnp.float32),
      jax.ShapeDtypeStruct((rows, wide), jnp.int32),
      jax.ShapeDtypeStruct((rows, _LANES), jnp.float32),
    ],
    scratch_shapes=[pltpu.VMEM((tiles.rows, tiles.latents), jnp.float32)],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=("parallel", "arbitrary", "arbitrary"),
      vmem_limit_bytes=tpu_chips.target().kernel_vmem_bytes,
    ),
    cost_estimate=pl.CostEstimate(
      flops=2 * rows * latents * d_model,
      transcendentals=0,
      bytes_accessed=x_BD.nbytes
      + w_enc_FD.nbytes * grid[0]
      + rows * (8 * wide + 4 * _LANES),
    ),
    interpret=dispatch.interpret(),
    name="topk_encode",
  )(x_BD, w_enc_FD, b_enc_F.astype(jnp.float32)[None, :])
  return values_BC, ids_BC, dropped_BN


def candidates(
  x_BD: jax.Array, w_enc_FD: jax.Array, b_enc_F: jax.Array, k: int
) -> candidates_lib.Candidates:
  """See `api.topk_encode`; exact right away where buckets do not pay."""
  (rows, d_model), latents = x_BD.shape, w_enc_FD.shape[0]
  buckets = choose_buckets(rows, k, latents)
  if buckets is None or x_BD.dtype not in (jnp.float32, jnp.bfloat16):
    return xla.candidates(x_BD, w_enc_FD, b_enc_F, k)
  # The sublanes of a bfloat16 register. Rows that are added cost nothing.
  x_BD = jnp.pad(x_BD, ((0, -rows % 16), (0, 0)))
  tiles = choose_tiles(
    tpu_chips.target(),
    x_BD.shape[0],
    latents,
    d_model,
    x_BD.dtype.itemsize,
    buckets,
  )
  found = _select(x_BD, w_enc_FD, b_enc_F, buckets, tiles)
  values_BC, ids_BC, dropped_BN = (a[:rows] for a in found)
  lane_C = jnp.arange(values_BC.shape[1], dtype=jnp.int32) % buckets.count
  return buckets_lib.finish(
    -_unmask(values_BC),
    ids_BC * buckets.count + lane_C[None, :],
    _unmask(dropped_BN),
    k,
  )


def _unmask(values):
  return jnp.where(values == _LOWEST, -jnp.inf, values)
