# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Buckets of latents: a kernel keeps the few best of every bucket of a row.

Latent f is in bucket f mod `buckets`, so that a tile of neighbouring latents
meets every bucket once and a kernel compares lane by lane. What leaves the
last place of a bucket is dropped; the largest of it is the row's bound.
"""

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops.topk_encode import candidates as candidates_lib

# A batch that is done again costs some tens of steps of what is saved, so at
# one in a thousand the redone ones do not show.
ODDS = 1e-3


def odds(k: int, rows: int, kept: int, buckets: int) -> float:
  """Bounds how often a batch is not certified, if winners fall at random.

  By the union over rows and buckets of "more than `kept` of the row's k
  winners share the bucket", a binomial tail. Winners that share a bucket more
  often than chance has it raise this; the bound that is checked does not rely
  on it.
  """
  p = 1 / buckets

  def chance(n):  # by logarithms, as the factors overflow at some k = 1000
    ways = math.lgamma(k + 1) - math.lgamma(n + 1) - math.lgamma(k - n + 1)
    return math.exp(ways + n * math.log(p) + (k - n) * math.log1p(-p))

  return min(1.0, rows * buckets * sum(map(chance, range(kept + 1, k + 1))))


def choose(
  k: int, rows: int, choices: Iterable[tuple[int, int]]
) -> tuple[int, int] | None:
  """The first (kept, buckets) of `choices` that `ODDS` and k allow, or None.

  The caller lists what its kernel can do, cheapest first.
  """
  for kept, buckets in choices:
    if kept * buckets >= k and odds(k, rows, kept, buckets) <= ODDS:
      return kept, buckets
  return None


def insert(
  kept: tuple[tuple[jax.Array, jax.Array], ...],
  value: jax.Array,
  tile: jax.Array,
) -> tuple[
  tuple[tuple[jax.Array, jax.Array], ...], tuple[jax.Array, jax.Array]
]:
  """Inserts a tile's values into the places of their buckets, lane by lane.

  `kept` holds (values, tiles) per place, descending; returns it anew, and the
  (values, tiles) that fell out of the last place. Of equal values the earlier
  tile stays ahead. A NaN fills every place of its bucket, by the rules of
  `jnp.maximum`.
  """
  places = []
  fallen, of_fallen = value, tile  # what the place above hands down
  for at, of in kept:
    ahead = value > at  # then of every lower place too
    places.append((jnp.maximum(at, fallen), jnp.where(ahead, of_fallen, of)))
    fallen = jnp.minimum(at, value)
    of_fallen = jnp.where(ahead, of, tile)
  return tuple(places), (fallen, of_fallen)


def finish(
  keys_BC: jax.Array, latents_BC: jax.Array, dropped_BL: jax.Array, k: int
) -> candidates_lib.Candidates:
  """Sorts what was kept: the k largest, equal ones by latent.

  `keys_BC` are the values negated, so that one sort puts both in order. A row
  with a NaN in `dropped_BL`, which every NaN leads to, becomes +inf.
  """
  keys_BC, latents_BC = lax.sort(
    (keys_BC, latents_BC), dimension=1, num_keys=2, is_stable=False
  )
  bound_B = jnp.max(dropped_BL, axis=1)
  bound_B = jnp.where(jnp.isnan(dropped_BL).any(1), jnp.inf, bound_B)
  values_BK = jnp.where(bound_B[:, None] < jnp.inf, -keys_BC[:, :k], jnp.inf)
  return candidates_lib.Candidates(
    values_BK, latents_BC[:, :k].astype(jnp.int32), bound_B
  )
