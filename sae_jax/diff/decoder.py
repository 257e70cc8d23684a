# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoder rows against directions of the residual stream.

Products are made where the rows are, split over `latent`; only [N, F] leaves
the devices.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from sae_jax import sae
from sae_jax.diff import latent_means, statistics
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh

_VECTORS = 32  # at a time, so that every call has one compiled shape


def project(
  dictionary: sae.Sae, vectors_ND: np.ndarray, mesh: jax.sharding.Mesh
) -> np.ndarray:
  """Products of N vectors with all decoder rows, float32 [N, F].

  Args:
    dictionary: on the mesh, see `on_mesh.place`.
    vectors_ND: taken as float32; products are float32 throughout.
    mesh: of the dictionary.
  """
  vectors_ND = np.asarray(vectors_ND, np.float32)
  found_NF = np.empty((len(vectors_ND), dictionary.latents), np.float32)
  for first in range(0, len(vectors_ND), _VECTORS):
    some_ND = np.zeros((_VECTORS, vectors_ND.shape[1]), np.float32)
    some_ND[: len(vectors_ND) - first] = vectors_ND[first : first + _VECTORS]
    part_NF = _project(dictionary.params.w_dec_FD, some_ND, mesh=mesh)
    part_NF = np.asarray(part_NF)[: len(vectors_ND) - first]
    found_NF[first : first + _VECTORS] = part_NF
  return found_NF


def lengths(dictionary: sae.Sae, mesh: jax.sharding.Mesh) -> np.ndarray:
  """Norms of the decoder rows, float32 [F]."""
  return np.asarray(_lengths(dictionary.params.w_dec_FD, mesh=mesh))


def cosines(
  dictionary: sae.Sae, vector_D: np.ndarray, mesh: jax.sharding.Mesh
) -> np.ndarray:
  """Cosine of every decoder row with one vector, [F]; 0 for a length of 0."""
  product_F = project(dictionary, vector_D[None], mesh)[0]
  size_F = lengths(dictionary, mesh) * np.float32(np.linalg.norm(vector_D))
  return np.divide(
    product_F, size_F, out=np.zeros_like(product_F), where=size_F > 0
  )


def chance(latents: int, d_model: int, q: float) -> float:
  """The largest |cosine| of F random rows with a direction, exceeded with
  probability at most q.

  cos² of a random direction is Beta(1/2, (D − 1)/2); Bonferroni over F.
  """
  square = special.betaincinv(0.5, (d_model - 1) / 2, 1 - q / latents)
  return float(np.sqrt(square))


def aligned(
  problem: problem_lib.Problem,
  dictionary: sae.Sae,
  sums_GD: np.ndarray,
  n_G: np.ndarray,
) -> statistics.Measured:
  """How far each decoder row lies along a mean difference, with intervals.

  The score is the cosine with the mean Σ_g sums / Σ_g n. Intervals and tests
  are of the projection (the mean's length is held fixed), by groups. A row has
  `changed` only where its cosine is also beyond `chance`: nearly every row has
  *some* product with a real difference.

  Args:
    problem: for config and mesh.
    dictionary: on the mesh.
    sums_GD: float64, sums of the difference over each group.
    n_G: rows of each group.
  """
  total_D = sums_GD.sum(0) / max(n_G.sum(), 1)
  size_F = lengths(dictionary, problem.mesh) * np.linalg.norm(total_D)
  inverse_F = np.divide(1, size_F, out=np.zeros(len(size_F)), where=size_F > 0)
  w_dec_FD = problem.dictionary.params.w_dec_FD

  def block(start: int, stop: int) -> np.ndarray:
    part_GF = latent_means.projections(w_dec_FD, sums_GD, start, stop)
    return part_GF * inverse_F[None, start:stop]

  config = problem.config.statistics
  band = chance(dictionary.latents, dictionary.d_model, config.q)
  return statistics.measure(
    [block],
    n_G,
    dictionary.latents,
    config,
    noise_F=np.full(dictionary.latents, band),
  )


@functools.partial(jax.jit, static_argnames="mesh")
def _project(w_FD, vectors_ND, *, mesh):
  return on_mesh.everywhere(
    jnp.einsum(
      "nd,fd->nf", vectors_ND, w_FD, precision=jax.lax.Precision.HIGHEST
    ),
    mesh,
  )


@functools.partial(jax.jit, static_argnames="mesh")
def _lengths(w_FD, *, mesh):
  return on_mesh.everywhere(jnp.linalg.norm(w_FD, axis=1), mesh)


def place(problem: problem_lib.Problem) -> sae.Sae:
  """The problem's dictionary on its mesh."""
  return on_mesh.place(problem.dictionary, problem.mesh)
