# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""GPU: a chunk of pre-activations is read once, where XLA sorts it.

The product of a chunk of rows is XLA's. A Mosaic GPU kernel then streams it
and keeps, in registers, the best of every bucket of latents (`buckets`); only
those are sorted.

Bytes per pre-activation behind the product, as compiled for an H100: XLA sorts
(value, latent) pairs by 6, 15 or 21 kernels at 16 K, 64 K or 128 K latents, all
of which read and write 8 bytes, hence 96, 240 or 336. Here the kernel reads 4,
and at K = 32 it keeps 896 pairs: written, copied and sorted by XLA, at 40 bytes
each, they add 2.2, 0.5 or 0.3. (That sort is XLA's own; where a GPU is at hand
it takes CUB's. Neither has been timed.)
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from sae_jax import errors
from sae_jax.ops import rows
from sae_jax.ops.topk_encode import buckets as buckets_lib
from sae_jax.ops.topk_encode import candidates as candidates_lib
from sae_jax.ops.topk_encode import xla

NAME = "sae_topk_buckets"

# A chunk's pre-activations, in elements: 64 MiB of float32, so that the dozen
# launches per chunk weigh little against an estimated 100 µs of work ...
_CHUNK_ELEMENTS = 1 << 24
# ... but not fewer rows than let the product reuse each encoder row often
# enough: H100, 989 TFLOP/s over 3.35 TB/s are 295 rows of bfloat16.
_CHUNK_ROWS = 512

# Lanes of one warpgroup of 128 threads: 4 per thread. ptxas then takes 125
# registers at 8 places, 38 at the 7 places of 128 lanes, and spills none.
_LANES = 512
_UNROLL = 4  # loads that are under way per lane
_BUCKETS = (128, 256, 512, 1024, 2048, 4096)
_PLACES = range(2, 13)
_SORTED = 4096  # XLA sorts rows up to this long in one kernel, not in several


def _cycles(latents: int, kept: int, buckets: int) -> float:
  """Estimated cycles of one multiprocessor for one row, to compare shapes by.

  The fold's maximum, minimum, comparison and two selections per place run at
  64 lanes a cycle. XLA sorts n = 2^s candidates in s (s + 1) / 2 rounds of
  n / 2 exchanges, taken as 40 instructions each, at 128 lanes a cycle.
  """
  s = (kept * buckets - 1).bit_length()
  return latents * (5 * kept + 2) / 64 + s * (s + 1) / 2 * 2**s / 2 * 40 / 128


def shape(k: int, count: int, latents: int) -> tuple[int, int] | None:
  """(places, buckets) for this problem; None: nothing beats a full sort.

  The buckets divide the latents if any do, as padding copies the encoder.
  """
  divisors = [buckets for buckets in _BUCKETS if latents % buckets == 0]
  choices = [
    (kept, buckets)
    for kept in _PLACES
    for buckets in divisors or _BUCKETS
    if kept * buckets <= min(_SORTED, latents // 4)
  ]
  choices.sort(key=lambda choice: _cycles(latents, *choice))
  return buckets_lib.choose(k, count, choices)


def candidates(
  x_BD: jax.Array, w_enc_FD: jax.Array, b_enc_F: jax.Array, k: int
) -> candidates_lib.Candidates:
  """See `api.topk_encode`; writes [chunk, F], never [B, F] when that is big.

  Lowered for a CPU, the kernel's fold runs as array operations.

  Raises:
    errors.InputError: the GPU is older than Hopper.
  """
  _refuse_older_gpus()
  count, latents = x_BD.shape[0], w_enc_FD.shape[0]
  chosen = shape(k, count, latents)
  if chosen is None or x_BD.dtype == jnp.float64:
    return xla.candidates(x_BD, w_enc_FD, b_enc_F, k)
  kept, buckets = chosen
  b_enc_F = b_enc_F.astype(jnp.float32)
  padding = -latents % buckets
  if padding:
    w_enc_FD = jnp.pad(w_enc_FD, ((0, padding), (0, 0)))
    b_enc_F = jnp.pad(b_enc_F, (0, padding), constant_values=-jnp.inf)

  def encode_chunk(x_CD):
    product_CF = lax.dot_general(
      x_CD,
      w_enc_FD,
      (((1,), (1,)), ((), ())),
      precision=lax.Precision.HIGHEST,
      preferred_element_type=jnp.float32,
    )
    best = best_of_buckets(product_CF, b_enc_F, kept, buckets)
    found = buckets_lib.finish(*best, k)
    # Padding is named only where fewer than k latents are allowed.
    indices_CK = jnp.minimum(found.indices_BK, latents - 1)
    return dataclasses.replace(found, indices_BK=indices_CK)

  chunk = max(_CHUNK_ROWS, _CHUNK_ELEMENTS // latents)
  return rows.map_chunks(encode_chunk, chunk, x_BD)


def _refuse_older_gpus():
  # Mosaic begins every kernel with elect.sync, which Ampere does not have:
  # LLVM then ends the process (jaxlib 0.10.2 and 0.12.0).
  device = jax.devices()[0]
  if device.platform != "gpu":
    return
  major = device.compute_capability.partition(".")[0]  # AMD's: gfx90a
  if not major.isdigit() or int(major) < 9:
    raise errors.InputError(
      "topk_encode: implementation='pallas_gpu' needs an NVIDIA GPU of compute"
      f" capability 9.0 or higher, {device.device_kind} has"
      f" {device.compute_capability}; choose implementation='xla'"
    )


def best_of_buckets(
  product_CF: jax.Array, b_F: jax.Array, kept: int, buckets: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The best of every bucket of `product_CF + b_F`, and what was left out.

  Returns keys_CN, the values negated, and latents_CN (uint32) of N = kept ·
  buckets places, in no order, and dropped_CL, the largest value of each of the
  L buckets that is in none of them. A NaN fills its bucket, and its `dropped`.
  """
  arguments = (product_CF, b_F, np.arange(buckets, dtype=np.uint32))
  return lax.platform_dependent(
    *arguments,
    cpu=functools.partial(_fold_arrays, kept=kept),
    cuda=functools.partial(fold_kernel, kept=kept),
  )


def _fold(load, tiles: int, kept: int, lanes: tuple[int, ...]):
  """Folds `load(tile)` over all tiles; the first ones fill the places."""

  def insert(places, tile):
    # Unsigned, as Mosaic takes what its select returns for unsigned.
    number = jnp.full(lanes, tile, jnp.uint32)
    return buckets_lib.insert(places, load(tile), number)

  places = ()
  for tile in range(kept):
    places, out = insert(places, tile)
    places += (out,)
  # Mosaic unrolls only what it can divide; the remainder goes ahead.
  start = kept + 1 + (tiles - kept - 1) % _UNROLL
  dropped = None
  for tile in range(kept, start):
    places, (value, _) = insert(places, tile)
    dropped = value if dropped is None else jnp.maximum(dropped, value)

  def step(tile, state):
    places, dropped = state
    places, (value, _) = insert(places, tile)
    return places, jnp.maximum(dropped, value)

  return lax.fori_loop(start, tiles, step, (places, dropped), unroll=_UNROLL)


def _fold_arrays(product_CF, b_F, lanes_L, *, kept):
  count, latents = product_CF.shape
  buckets = lanes_L.size

  def load(tile):
    at = tile * buckets
    b_L = lax.dynamic_slice_in_dim(b_F, at, buckets)
    return lax.dynamic_slice_in_dim(product_CF, at, buckets, 1) + b_L[None]

  places, dropped_CL = _fold(load, latents // buckets, kept, (count, buckets))
  return (
    jnp.concatenate([-values for values, _ in places], 1),
    jnp.concatenate(
      [tiles * buckets + lanes_L[None] for _, tiles in places], 1
    ),
    dropped_CL,
  )


def fold_kernel(
  product_CF: jax.Array,
  b_F: jax.Array,
  lanes_L: jax.Array,
  *,
  kept: int,
  interpret: Any = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The kernel of `best_of_buckets`; `lanes_L` counts from 0 to L - 1.

  Reads each of the C · F products once and writes 8 · N + 4 · L bytes a row.
  `interpret`: what `plgpu.kernel` takes.
  """
  count, latents = product_CF.shape
  buckets = lanes_L.size
  lanes = min(buckets, _LANES)

  def body(product_ref, b_ref, lanes_ref, keys_ref, latents_ref, dropped_ref):
    row = lax.axis_index("row")
    first = lax.axis_index("part") * lanes

    def load(tile):
      at = pl.ds(tile * buckets + first, lanes)
      return product_ref[row, at] + b_ref[at]

    places, dropped = _fold(load, latents // buckets, kept, (lanes,))
    lane = lanes_ref[pl.ds(first, lanes)]
    for place, (values, tiles) in enumerate(places):
      at = pl.ds(place * buckets + first, lanes)
      keys_ref[row, at] = -values
      latents_ref[row, at] = tiles * buckets + lane
    dropped_ref[row, pl.ds(first, lanes)] = dropped

  places = (count, kept * buckets)
  return plgpu.kernel(
    body,
    out_type=(
      jax.ShapeDtypeStruct(places, jnp.float32),
      jax.ShapeDtypeStruct(places, jnp.uint32),
      jax.ShapeDtypeStruct((count, buckets), jnp.float32),
    ),
    grid=(count, buckets // lanes),
    grid_names=("row", "part"),
    # Nothing that is read is written, so no store needs a barrier.
    compiler_params=plgpu.CompilerParams(unsafe_no_auto_barriers=True),
    kernel_name=NAME,
    interpret=interpret,
  )(product_CF, b_F, lanes_L)
