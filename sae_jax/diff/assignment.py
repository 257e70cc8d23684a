# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Nearest rows of two matrices by cosine, and assignments of one to one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from sae_jax.interpret import best_rows

_CANDIDATES = 16  # nearest of each row that the greedy assignment looks at
_QUERIES = 512  # rows at a time, so that every call has one compiled shape


@dataclasses.dataclass(frozen=True)
class Nearest:
  """Per row the nearest rows of the other dictionary, [F, C], nearest first."""

  cos_FC: np.ndarray
  ids_FC: np.ndarray


def nearest(
  rows_FD: np.ndarray,
  other_GD: np.ndarray,
  mesh: jax.sharding.Mesh,
  *,
  count: int = _CANDIDATES,
  progress=lambda done: None,
) -> Nearest:
  """The `count` rows of the other matrix with the largest cosine to each row.

  Equal cosines: the lower row first. A row of length 0 has cosine 0 with all.
  """
  count = min(count, len(other_GD))
  split = best_rows.split_evenly(len(other_GD), mesh)
  placed = _put(other_GD, mesh, jax.P("latent" if split else None, None))
  cos_FC = np.empty((len(rows_FD), count), np.float32)
  ids_FC = np.empty((len(rows_FD), count), np.int32)
  for call, start in enumerate(range(0, len(rows_FD), _QUERIES), 1):
    some_ND = rows_FD[start : start + _QUERIES]
    padded_ND = np.zeros((_QUERIES, rows_FD.shape[1]), np.float32)
    padded_ND[: len(some_ND)] = some_ND
    ((cos_NC, ids_NC),) = jax.device_get(
      best_rows.best_rows(
        placed,
        (_put(padded_ND, mesh, jax.P()),),
        score=_cosines,
        count=count,
        rows=len(other_GD),
        mesh=mesh,
      )
    )
    cos_FC[start : start + len(some_ND)] = cos_NC[: len(some_ND)]
    ids_FC[start : start + len(some_ND)] = ids_NC[: len(some_ND)]
    progress(call)
  return Nearest(cos_FC, ids_FC)


def calls(rows: int) -> int:
  return -(-rows // _QUERIES)


def _put(x, mesh: jax.sharding.Mesh, spec: jax.P) -> jax.Array:
  x = np.asarray(x, np.float32)
  sharding = jax.NamedSharding(mesh, spec)
  return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])


def _cosines(w_bD, query_ND):
  size_Nb = (
    jnp.linalg.norm(query_ND, axis=1)[:, None]
    * jnp.linalg.norm(w_bD, axis=1)[None, :]
  )
  dot_Nb = jnp.einsum(
    "nd,bd->nb", query_ND, w_bD, precision=jax.lax.Precision.HIGHEST
  )
  return (
    jnp.where(size_Nb > 0, dot_Nb / jnp.where(size_Nb > 0, size_Nb, 1), 0),
  )


def exact(a_FD: np.ndarray, b_GD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The assignment with the largest sum of cosines; the larger side has left-
  over latents."""
  cos_FG = _unit(a_FD) @ _unit(b_GD).T
  at_N, partner_N = scipy.optimize.linear_sum_assignment(cos_FG, maximize=True)
  partner_F = np.full(len(a_FD), -1, np.int32)
  cos_F = np.full(len(a_FD), np.nan)
  partner_F[at_N] = partner_N
  cos_F[at_N] = cos_FG[at_N, partner_N]
  return partner_F, cos_F


def _unit(rows_FD: np.ndarray) -> np.ndarray:
  rows_FD = rows_FD.astype(np.float64)
  norm_F1 = np.linalg.norm(rows_FD, axis=1, keepdims=True)
  return rows_FD / np.where(norm_F1 > 0, norm_F1, 1)


def greedy(ours: Nearest, theirs: Nearest) -> tuple[np.ndarray, np.ndarray]:
  """Takes candidate pairs by falling cosine while both latents are free."""
  latents, others = len(ours.ids_FC), len(theirs.ids_FC)
  a_N = np.concatenate(
    [
      np.repeat(np.arange(latents), ours.ids_FC.shape[1]),
      theirs.ids_FC.ravel(),
    ]
  )
  b_N = np.concatenate(
    [ours.ids_FC.ravel(), np.repeat(np.arange(others), theirs.ids_FC.shape[1])]
  )
  cos_N = np.concatenate([ours.cos_FC.ravel(), theirs.cos_FC.ravel()])
  order_N = np.lexsort((b_N, a_N, -cos_N))
  partner_F = np.full(latents, -1, np.int32)
  cos_F = np.full(latents, np.nan)
  free_a, free_b = bytearray(b"\1") * latents, bytearray(b"\1") * others
  pairs = zip(
    order_N, a_N[order_N].tolist(), b_N[order_N].tolist(), strict=True
  )
  for pair, a, b in pairs:
    if free_a[a] and free_b[b]:
      free_a[a] = free_b[b] = 0
      partner_F[a], cos_F[a] = b, cos_N[pair]
  return partner_F, cos_F
