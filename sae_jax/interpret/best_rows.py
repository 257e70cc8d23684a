# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The rows of a tall matrix that score highest, without its score matrix.

Scores are made a block of rows at a time on the shard that holds them; between
shards travel the few best candidates. Equal scores: the lower row wins.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

# 4096 rows of width 4096 are 64 MiB in f32.
_BLOCK = 4096

# (block of rows f32 [b, D], *queries) -> scores f32 [N, b], one or several.
Score = Callable[..., tuple[jax.Array, ...]]


def split_evenly(rows: int, mesh: jax.sharding.Mesh) -> bool:
  """Whether a matrix of so many rows is split over `latent`, or on each."""
  return rows % mesh.shape["latent"] == 0


@functools.partial(
  jax.jit, static_argnames=("score", "count", "rows", "mesh", "block")
)
def best_rows(
  w_RD: jax.Array,
  queries: tuple[jax.Array, ...],
  *,
  score: Score,
  count: int,
  rows: int,
  mesh: jax.sharding.Mesh,
  block: int = _BLOCK,
) -> tuple[tuple[jax.Array, jax.Array], ...]:
  """The `count` best rows by each score.

  Args:
    w_RD: split over `latent` where R divides, else replicated.
    queries: what `score` takes beside the rows; replicated.
    score: a top-level function; see `Score`.
    count: at most `rows`.
    rows: only the first so many rows take part.
    mesh: where `w_RD` lies.
    block: rows at a time on a shard.

  Returns:
    Per score: values f32 [N, count], descending, and rows int32 [N, count].
  """
  split = split_evenly(w_RD.shape[0], mesh)

  def local(w_rD, *queries):
    first = lax.axis_index("latent") * w_rD.shape[0] if split else 0
    found = _best_of_shard(w_rD, queries, first, score, count, rows, block)
    if not split:
      return found
    return tuple(
      _best(_gather(values_NC), _gather(ids_NC), count)
      for values_NC, ids_NC in found
    )

  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(
      jax.P("latent" if split else None, None),
      *(jax.P() for _ in queries),
    ),
    out_specs=jax.P(),
    check_vma=False,
  )(w_RD, *queries)


def _best_of_shard(w_rD, queries, first, score, count, rows, block):
  height = w_rD.shape[0]
  block = min(block, height)

  def scored(i):
    # The last block is moved up to end with the shard; what it repeats is out.
    start = jnp.minimum(i * block, height - block)
    rows_bD = lax.dynamic_slice_in_dim(w_rD, start, block).astype(jnp.float32)
    local_b = start + jnp.arange(block)
    id_b = (first + local_b).astype(jnp.int32)
    out_b = (local_b < i * block) | (id_b >= rows)
    return [
      (jnp.where(out_b[None, :], -jnp.inf, s_Nb), _spread(id_b, s_Nb.shape[0]))
      for s_Nb in score(rows_bD, *queries)
    ]

  def step(best, i):
    return tuple(
      _best(
        jnp.concatenate([values, more], axis=1),
        jnp.concatenate([ids, more_ids], axis=1),
        count,
      )
      for (values, ids), (more, more_ids) in zip(best, scored(i), strict=True)
    ), None

  shapes = jax.eval_shape(scored, jnp.int32(0))
  empty = tuple(
    (
      jnp.full((s.shape[0], count), -jnp.inf, jnp.float32),
      jnp.zeros((s.shape[0], count), jnp.int32),
    )
    for s, _ in shapes
  )
  return lax.scan(step, empty, jnp.arange(-(-height // block)))[0]


def _gather(x_NC):
  """The candidates of all shards, in the order of their rows."""
  return lax.all_gather(x_NC, "latent", axis=1, tiled=True)


def _spread(id_b, n):
  return jnp.broadcast_to(id_b[None, :], (n, id_b.shape[0]))


def _best(values_NC, ids_NC, count):
  """Candidates stand in the order of their rows, so that ties are kept so."""
  best_NK, at_NK = lax.top_k(values_NC, count)
  return best_NK, jnp.take_along_axis(ids_NC, at_NK, axis=1)
