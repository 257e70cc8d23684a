# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The latents of a dictionary whose decoder rows lie nearest to a latent's."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, sae
from sae_jax.interpret import best_rows, on_mesh

_QUERIES = 32  # at a time, so that every call has one compiled shape


def nearest(
  dictionary: sae.Sae,
  latents: Sequence[int],
  count: int = 5,
  *,
  mesh: jax.sharding.Mesh,
) -> list[list[list]]:
  """The `count` nearest other latents by cosine of decoder rows.

  Args:
    dictionary: the SAE, on the mesh already or not.
    latents: whose neighbours are wanted.
    count: how many; fewer where the dictionary has fewer others.
    mesh: holds the dictionary, latents split over `latent`.

  Returns:
    Per latent [[other latent, cosine], …], nearest first; equal cosines: the
    lower latent first. A row of length 0 has cosine 0 with every other.

  Raises:
    errors.InputError: no such latent, or they do not split over the mesh.
  """
  wanted_N = np.asarray(list(latents), np.int32)
  for latent in wanted_N:
    if not 0 <= latent < dictionary.latents:
      raise errors.InputError(
        f"latent {latent}: this SAE has latents 0..{dictionary.latents - 1}"
      )
  placed = on_mesh.place(dictionary, mesh)
  count = min(count, dictionary.latents - 1)
  if count < 1:
    return [[] for _ in wanted_N]
  results = []
  for start in range(0, len(wanted_N), _QUERIES):
    some_N = wanted_N[start : start + _QUERIES]
    padded_N = np.resize(some_N, _QUERIES)
    ((cos_NK, ids_NK),) = jax.device_get(
      best_rows.best_rows(
        placed.params.w_dec_FD,
        (_rows(placed.params.w_dec_FD, padded_N, mesh=mesh),),
        score=_cosines,
        count=count + 1,  # itself is among them
        rows=dictionary.latents,
        mesh=mesh,
      )
    )
    results += [
      _others(int(latent), ids_NK[i], cos_NK[i], count)
      for i, latent in enumerate(some_N)
    ]
  return results


def _rows(w_FD: jax.Array, latents_N: np.ndarray, *, mesh) -> jax.Array:
  rows_ND = jnp.asarray(w_FD)[jnp.asarray(latents_N)].astype(jnp.float32)
  return jax.device_put(rows_ND, jax.NamedSharding(mesh, jax.P()))


def _cosines(w_bD, query_ND):
  length_b = jnp.linalg.norm(w_bD, axis=1)
  length_N = jnp.linalg.norm(query_ND, axis=1)
  cos_Nb = jnp.einsum(
    "nd,bd->nb", query_ND, w_bD, precision=jax.lax.Precision.HIGHEST
  )
  length_Nb = length_N[:, None] * length_b[None, :]
  return (cos_Nb / jnp.where(length_Nb > 0, length_Nb, 1),)


def _others(latent: int, ids_K, cos_K, count: int) -> list[list]:
  """Without the latent itself, which identical rows may have pushed out."""
  pairs = [
    [int(other), float(cos)]
    for other, cos in zip(ids_K, cos_K, strict=True)
    if other != latent
  ]
  return pairs[:count]
