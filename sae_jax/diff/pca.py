# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Principal components of paired differences, streamed from two stores.

Up to width 4,096 the covariance is exact: float32 products around the known
mean, summed with compensation, one sum per row shard. Wider, a randomised range
finder (Halko, Martinsson & Tropp 2011, arXiv 0909.4061, algorithm 4.4) reads
the stores three times. An unfinished pass is kept in `problem.work`.
"""

import dataclasses
import functools
import io
import pathlib
import time

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
_SECONDS = 120  # between two savings of an unfinished pass


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
  basis_DP = np.random.default_rng(seed).normal(size=(d, width))
  for number in range(_PASSES):
    basis_DP, _ = np.linalg.qr(basis_DP)
    image_DP, trace = _second_moment(
      problem, name, other, mean_D, basis_DP, f"{stem}.{number}"
    )
    if number + 1 < _PASSES:
      basis_DP = image_DP
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
  values_C, vectors_PC = scipy.linalg.eigh(
    sum_PP / rows, subset_by_index=(p - count, p - 1)
  )
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
  problem, name, other, mean_D, right_DP, stem: str
) -> tuple[np.ndarray, float]:
  """Σ δ δᵀ R over rows in scope, δ centred, and Σ |δ|²; R None: identity."""
  path = problem.work / f"{stem}.npz"
  evidence, mesh = problem.evidence, problem.mesh
  width = evidence.d_model if right_DP is None else right_DP.shape[1]
  start, sums = _restore(path, evidence.d_model, width, mesh)
  constants = jax.device_put(
    (
      jnp.asarray(mean_D, jnp.float32),
      None if right_DP is None else jnp.asarray(right_DP, jnp.float32),
    ),
    jax.NamedSharding(mesh, jax.P()),
  )
  add = _adder(mesh, _split(evidence.d_model, mesh), right_DP is not None)
  progress = problem.progress(evidence.num_batches, "batches")
  saved = time.monotonic()
  both = zip(
    evidence.batches(name, start), evidence.batches(other, start), strict=True
  )
  for ours, theirs in both:
    sums = add(sums, ours.x_BD, theirs.x_BD, ours.group_B, *constants)
    progress.update(ours.index + 1, f"PCA {name} - {other}")
    if time.monotonic() - saved > _SECONDS:
      _save(path, ours.index + 1, sums)
      saved = time.monotonic()
  progress.close()
  if start < evidence.num_batches:
    _save(path, evidence.num_batches, sums)
  total_DP = np.zeros((evidence.d_model, width))
  for shard in range(on_mesh.lanes(mesh)):
    total_DP += np.asarray(sums.s_LDP[shard], np.float64)
    total_DP += np.asarray(sums.c_LDP[shard], np.float64)
  trace = np.sum(np.asarray(sums.s_L, np.float64) + np.asarray(sums.c_L))
  return total_DP, float(trace)


def _split(d_model: int, mesh: jax.sharding.Mesh) -> bool:
  """Whether the sums' rows are split over `latent`, or on each of them."""
  return d_model % mesh.shape["latent"] == 0


def _specs(split: bool) -> _Sums:
  big = jax.P(on_mesh.ROWS, "latent" if split else None, None)
  small = jax.P(on_mesh.ROWS)
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


def _restore(
  path: pathlib.Path, d_model: int, width: int, mesh: jax.sharding.Mesh
) -> tuple[int, _Sums]:
  lanes = on_mesh.lanes(mesh)
  if path.exists():
    with np.load(path, allow_pickle=False) as file:
      start = int(file["next"])
      sums = _Sums(*(file[name] for name in ("s", "c", "s_square", "c_square")))
  else:
    start = 0
    big = np.zeros((lanes, d_model, width), np.float32)
    small = np.zeros(lanes, np.float32)
    sums = _Sums(big, big, small, small)
  shardings = jax.tree.map(
    lambda spec: jax.NamedSharding(mesh, spec), _specs(_split(d_model, mesh))
  )
  # The sums are donated to the next step, so they may not be numpy memory.
  return start, jax.device_put(sums, shardings, may_alias=False)


def _save(path: pathlib.Path, start: int, sums: _Sums) -> None:
  data = io.BytesIO()
  np.savez(
    data,
    next=start,
    s=np.asarray(sums.s_LDP),
    c=np.asarray(sums.c_LDP),
    s_square=np.asarray(sums.s_L),
    c_square=np.asarray(sums.c_L),
  )
  artifacts.write_bytes_atomic(path, data.getvalue())
