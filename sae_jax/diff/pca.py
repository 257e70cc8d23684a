# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Principal components of paired differences, streamed from two stores.

Up to width 4,096 the covariance is exact: float32 products around the known
mean, summed with compensation, then in float64. Wider, a randomised range
finder (Halko, Martinsson & Tropp 2011, arXiv 0909.4061, algorithm 4.4) reads
the stores three times. An unfinished pass is kept in `problem.work`.
"""

import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from sae_jax import artifacts
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh

EXACT_WIDTH = 4096
COMPONENTS = 32
_OVERSAMPLE = 32
_PASSES = 3  # of the range finder: one sketch, one power step, one to read off
_FOLD = 64  # batches between two additions to the host's float64 sums
_SECONDS = 60  # between two savings of an unfinished pass


@dataclasses.dataclass(frozen=True)
class Components:
  """Largest first; signs are such that the product with the mean is >= 0.

  Attributes:
    variance_C: eigenvalues of the covariance, in squared activation units.
    vectors_CD: unit length.
    total: trace of the covariance.
    participation: trace² / trace of the square; None where it is not exact.
  """

  variance_C: np.ndarray
  vectors_CD: np.ndarray
  total: float
  participation: float | None
  rows: int


def components(
  problem: problem_lib.Problem,
  name: str,
  other: str,
  mean_D: np.ndarray,
  *,
  exact_width: int = EXACT_WIDTH,
) -> Components:
  """Principal components of `name` − `other` over the rows in scope.

  Args:
    problem: its evidence holds both.
    name: an arm.
    other: "base" or an arm.
    mean_D: the mean of that difference.
    exact_width: up to this width the covariance is exact.
  """
  d = problem.evidence.d_model
  stem = f"pca.{name}.{other}"
  if d <= exact_width:
    total_DD, trace = _second_moment(problem, name, other, mean_D, None, stem)
    covariance_DD = (total_DD + total_DD.T) / 2
    return _finish(
      covariance_DD, np.eye(d), trace, mean_D, problem.evidence.rows, True
    )
  width = min(d, COMPONENTS + _OVERSAMPLE)
  seed = problem.config.statistics.seed
  image_DP = np.random.default_rng(seed).normal(size=(d, width))
  basis_DP, trace = image_DP, 0.0
  for number in range(_PASSES):
    basis_DP, _ = np.linalg.qr(image_DP)
    image_DP, trace = _second_moment(
      problem, name, other, mean_D, basis_DP, f"{stem}.{number}"
    )
  small_PP = basis_DP.T @ image_DP
  return _finish(
    (small_PP + small_PP.T) / 2,
    basis_DP,
    trace,
    mean_D,
    problem.evidence.rows,
    False,
  )


def _finish(sum_PP, basis_DP, trace, mean_D, rows, exact) -> Components:
  p = len(sum_PP)
  count = min(COMPONENTS, p)
  found: Any = scipy.linalg.eigh(
    sum_PP / rows, subset_by_index=(p - count, p - 1)
  )
  values_C, vectors_PC = found
  vectors_CD = (basis_DP @ vectors_PC[:, ::-1]).T
  side_C = np.where(vectors_CD @ mean_D < 0, -1.0, 1.0)
  square = float(np.sum((sum_PP / rows) ** 2))
  total = trace / rows
  participation = total**2 / square if exact and square > 0 else None
  return Components(
    np.maximum(values_C[::-1], 0),
    vectors_CD * side_C[:, None],
    total,
    participation,
    rows,
  )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Sums:
  """Per row shard: compensated sums (s + c) of products and of squares."""

  s_LDP: jax.Array
  c_LDP: jax.Array
  s_L: jax.Array
  c_L: jax.Array


def _second_moment(
  problem: problem_lib.Problem,
  name: str,
  other: str,
  mean_D: np.ndarray,
  right_DP: np.ndarray | None,
  stem: str,
) -> tuple[np.ndarray, float]:
  """Σ δ δᵀ R over rows in scope, δ centred, and Σ |δ|²; R None: identity."""
  path = problem.work / f"{stem}.npz"
  evidence, mesh = problem.evidence, problem.mesh
  width = evidence.d_model if right_DP is None else right_DP.shape[1]
  start, total_DP, trace = _restore(path, (evidence.d_model, width))
  constants = jax.device_put(
    (
      jnp.asarray(mean_D, jnp.float32),
      None if right_DP is None else jnp.asarray(right_DP, jnp.float32),
    ),
    jax.NamedSharding(mesh, jax.P()),
  )
  split = evidence.d_model % mesh.shape["latent"] == 0
  add = _adder(mesh, split, right_DP is not None)
  sums = _zeros(mesh, split, total_DP.shape)
  progress = problem.progress(evidence.num_batches, "batches")
  saved = time.monotonic()
  both = zip(
    evidence.batches(name, start), evidence.batches(other, start), strict=True
  )
  for ours, theirs in both:
    sums = add(sums, ours.x_BD, theirs.x_BD, ours.group_B, *constants)
    done = ours.index + 1
    progress.update(done, f"PCA {name} - {other}")
    if done % _FOLD and done < evidence.num_batches:
      continue
    # At fixed batches, so that a resumed pass ends with the same bits.
    total_DP, trace = _fold(sums, total_DP, trace)
    sums = _zeros(mesh, split, total_DP.shape)
    late = time.monotonic() - saved > _SECONDS
    if late or done == evidence.num_batches:
      _save(path, done, total_DP, trace)
      saved = time.monotonic()
  progress.close()
  return total_DP, trace


def _fold(
  sums: _Sums, total_DP: np.ndarray, trace: float
) -> tuple[np.ndarray, float]:
  """Adds the devices' sums to the host's, in float64."""
  total_DP = total_DP.copy()
  for shard in range(sums.s_LDP.shape[0]):
    total_DP += np.asarray(sums.s_LDP[shard])
    total_DP += np.asarray(sums.c_LDP[shard])
  squares_L = np.asarray(sums.s_L, np.float64) + np.asarray(sums.c_L)
  return total_DP, trace + float(squares_L.sum())


def _specs(split: bool) -> _Sums:
  big: Any = jax.P(on_mesh.ROWS, "latent" if split else None, None)
  small: Any = jax.P(on_mesh.ROWS)
  return _Sums(big, big, small, small)


@functools.cache
def _adder(mesh: jax.sharding.Mesh, split: bool, sketch: bool):
  specs = _specs(split)
  row = jax.P(on_mesh.ROWS, None)

  def local(sums, x_BD, y_BD, group_B, mean_D, right_DP):
    delta_BD = x_BD.astype(jnp.float32) - y_BD.astype(jnp.float32)
    delta_BD = delta_BD - mean_D[None, :]
    delta_BD = jnp.where(group_B[:, None] >= 0, delta_BD, 0)
    right_BP = _product("bd,dp->bp", delta_BD, right_DP) if sketch else delta_BD
    height = sums.s_LDP.shape[1]
    first = jax.lax.axis_index("latent") * height if split else 0
    left_Bd = jax.lax.dynamic_slice_in_dim(delta_BD, first, height, axis=1)
    s_LDP, c_LDP = _add(
      sums.s_LDP,
      sums.c_LDP,
      _product("bd,bp->dp", left_Bd, right_BP)[None],
    )
    s_L, c_L = _add(sums.s_L, sums.c_L, jnp.sum(delta_BD**2)[None])
    return _Sums(s_LDP, c_LDP, s_L, c_L)

  mapped = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(specs, row, row, jax.P(on_mesh.ROWS), jax.P(), jax.P()),
    out_specs=specs,
    check_vma=False,
  )
  return jax.jit(mapped, donate_argnums=0)


def _product(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
  return jnp.einsum(equation, x, y, precision=jax.lax.Precision.HIGHEST)


def _add(s, c, x):
  """Neumaier's compensated sum: s + c is the sum, to float32's square."""
  t = s + x
  lost = jnp.where(jnp.abs(s) >= jnp.abs(x), (s - t) + x, (x - t) + s)
  return t, c + lost


def _zeros(
  mesh: jax.sharding.Mesh, split: bool, shape: tuple[int, int]
) -> _Sums:
  lanes, specs = on_mesh.lanes(mesh), _specs(split)

  def zeros(spec: Any, *shape: int) -> jax.Array:
    sharding = jax.NamedSharding(mesh, spec)
    return jnp.zeros((lanes, *shape), jnp.float32, device=sharding)

  return _Sums(
    zeros(specs.s_LDP, *shape),
    zeros(specs.c_LDP, *shape),
    zeros(specs.s_L),
    zeros(specs.c_L),
  )


def _restore(
  path: pathlib.Path, shape: tuple[int, int]
) -> tuple[int, np.ndarray, float]:
  """The next batch and the sums before it."""
  if not path.exists():
    return 0, np.zeros(shape), 0.0
  with np.load(path, allow_pickle=False) as file:
    return int(file["next"]), file["total"], float(file["trace"])


def _save(
  path: pathlib.Path, following: int, total_DP: np.ndarray, trace: float
) -> None:
  artifacts.write_npz_atomic(
    path, {"next": following, "total": total_DP, "trace": trace}
  )
