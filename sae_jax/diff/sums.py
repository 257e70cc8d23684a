# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Sums over the rows of every group: of latents, and of activations.

The devices encode; the host adds in float64, batch after batch and row after
row. So every sum has one order, whatever the mesh and however often the run was
killed, and n terms lose at most n · 2⁻⁵³ of the sum of their sizes: for 10⁶
rows of one group 10⁻¹⁰, no more than compensated float32 and without atomics.

Memory: a few batches of `[B, K]`. The sums themselves are files, `12 · G · F`
bytes, which the system keeps in memory as far as there is room.
"""

import dataclasses
import functools
import io
import os
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sae_jax import artifacts, errors
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh

_SAVE_SECONDS = 60.0  # at most so much work is lost by a kill
_CHUNK = 256  # rows that are added up in float32


@dataclasses.dataclass(frozen=True)
class LatentSums:
  """Sums over rows in scope, read from disk as they are used.

  Attributes:
    sums_GF: float64, of activations.
    fires_GF: int32, rows on which the latent is active.
    squares_F: float64, of squared activations.
    largest_F: float32, the largest activation.
  """

  sums_GF: np.ndarray
  fires_GF: np.ndarray
  squares_F: np.ndarray
  largest_F: np.ndarray


def total(values_GF: np.ndarray) -> np.ndarray:
  """The sum over groups, float64 [F], a row of the file at a time."""
  total_F = np.zeros(values_GF.shape[1])
  for values_F in values_GF:
    total_F += values_F
  return total_F


_DTYPES = {
  "sums_GF": np.float64,
  "fires_GF": np.int32,
  "squares_F": np.float64,
  "largest_F": np.float32,
}


def latent_sums(problem: problem_lib.Problem, name: str) -> LatentSums:
  """Encodes a model's activations and adds them up by group and latent.

  A finished sum in `problem.work` is reused; an unfinished one goes on from
  what was saved last.

  Args:
    problem: evidence, dictionary and mesh.
    name: "base", an arm or "null".

  Raises:
    errors.InputError: an activation is not finite, or the latents do not split
      over the mesh.
  """
  place = problem.work / f"latents.{name}"
  if not place.is_dir():
    _add_latents(problem, name, place)
  return LatentSums(**_open(place, "r"))


def activation_sums(problem: problem_lib.Problem, name: str) -> np.ndarray:
  """Sums of a model's activations over each group, float64 [G, D]; kept.

  Within a chunk of 256 rows they are added in float32, of bfloat16 values with
  8 bits each, so that most sums are exact; chunks are added with compensation,
  batches in float64.

  Raises:
    errors.InputError: an activation is not finite.
  """
  place = problem.work / f"activations.{name}.npy"
  saved = problem.work / f"activations.{name}.part.npz"
  if place.is_file():
    return np.load(place)
  evidence = problem.evidence
  x_GD, start = np.zeros((evidence.groups, evidence.d_model)), 0
  if saved.is_file():
    with np.load(saved) as file:
      x_GD, start = file["x_GD"], int(file["start"])

  def take(part_L2GD: np.ndarray) -> None:
    nonlocal x_GD
    for part_2GD in part_L2GD:  # one per lane of the mesh, in order
      x_GD += part_2GD.astype(np.float64).sum(0)

  def save(following: int) -> None:
    arrays = {"x_GD": x_GD, "start": following}
    artifacts.write_npz_atomic(saved, arrays)

  _stream(
    problem,
    name,
    start,
    functools.partial(
      _group_activations, groups=evidence.groups, mesh=problem.mesh
    ),
    take,
    save,
  )
  _write(place, np.save, arr=x_GD)
  saved.unlink(missing_ok=True)
  return x_GD


def _add_latents(
  problem: problem_lib.Problem, name: str, place: pathlib.Path
) -> None:
  latents, groups = problem.dictionary.latents, problem.evidence.groups
  working = place.with_name(place.name + ".part")
  saves = sorted(place.parent.glob(f"{place.name}.at.*"))
  shutil.rmtree(working, ignore_errors=True)
  if saves:
    shutil.copytree(saves[-1], working)
    start = int(saves[-1].name.rpartition(".")[2])
  else:
    _create(working, groups, latents)
    start = 0
  state = _open(working, "r+")
  sums, fires = state["sums_GF"].reshape(-1), state["fires_GF"].reshape(-1)
  squares_F, largest_F = state["squares_F"], state["largest_F"]

  def take(values_BK, latents_BK, group_B) -> None:
    row_N, slot_N = np.nonzero(values_BK)
    value_N = values_BK[row_N, slot_N]
    latent_N = latents_BK[row_N, slot_N].astype(np.int64)
    at_N = group_B[row_N].astype(np.int64) * latents + latent_N
    wide_N = value_N.astype(np.float64)
    np.add.at(sums, at_N, wide_N)
    np.add.at(fires, at_N, np.int32(1))
    np.add.at(squares_F, latent_N, wide_N**2)
    np.maximum.at(largest_F, latent_N, value_N)

  def save(following: int) -> None:
    _snapshot(working, place.with_name(f"{place.name}.at.{following:08d}"))

  dictionary = on_mesh.place(problem.dictionary, problem.mesh)
  program = functools.partial(_group_latents(problem.mesh), dictionary)
  _stream(problem, name, start, program, lambda found: take(*found), save)
  _sync(working)
  working.rename(place)
  for old in place.parent.glob(f"{place.name}.at.*"):
    shutil.rmtree(old)


def _stream(
  problem: problem_lib.Problem,
  name: str,
  start: int,
  program: Callable[[jax.Array, jax.Array], tuple[Any, jax.Array]],
  take: Callable[[Any], None],
  save: Callable[[int], None],
) -> None:
  """Runs a program on every batch; takes a result while the next one runs."""
  evidence = problem.evidence
  bar = problem.progress(evidence.num_batches, f"batches of {name}")
  last_save = time.monotonic()
  waiting: tuple[int, Any, jax.Array] | None = None

  def settle() -> None:
    nonlocal last_save
    if waiting is None:
      return
    index, found, finite = waiting
    if not bool(finite):
      raise errors.InputError(
        f"activations of {name!r} ({evidence.store(name).path}) in batch"
        f" {index} are NaN or infinite; harvest that store again"
      )
    take(jax.device_get(found))
    bar.update(index + 1)
    if time.monotonic() - last_save >= _SAVE_SECONDS:
      save(index + 1)
      last_save = time.monotonic()

  try:
    for batch in evidence.batches(name, start):
      following = (batch.index, *program(batch.x_BD, batch.group_B))
      settle()
      waiting = following
    settle()
  finally:
    bar.close()


@functools.cache
def _group_latents(mesh: jax.sharding.Mesh):
  """Compiled: active latents of the rows in scope, and their groups."""
  encode = on_mesh.encoder(mesh)

  @functools.partial(jax.jit, out_shardings=jax.NamedSharding(mesh, jax.P()))
  def program(dictionary, x_BD, group_B):
    counts_B = group_B >= 0
    values_BK, latents_BK = encode(dictionary, x_BD)
    values_BK = jnp.where(counts_B[:, None], values_BK, 0)
    finite = jnp.isfinite(values_BK).all() & _finite(x_BD, counts_B)
    return (values_BK, latents_BK, group_B), finite

  return program


@functools.partial(jax.jit, static_argnames=("groups", "mesh"))
def _group_activations(x_BD, group_B, *, groups, mesh):
  """Sums over groups as float32 pairs [lanes, 2, G, D]; a pair adds up."""

  def local(x_BD, group_B):
    rows, d_model = x_BD.shape
    pad = -rows % _CHUNK
    group_CB = jnp.pad(group_B, (0, pad), constant_values=-1)
    group_CB = group_CB.reshape(-1, _CHUNK)
    x_CBD = jnp.pad(x_BD, ((0, pad), (0, 0))).reshape(-1, _CHUNK, d_model)

    def add(total_2GD, chunk):
      x_BD, group_B = chunk
      one_BG = jax.nn.one_hot(group_B, groups, dtype=x_BD.dtype)
      part_GD = jnp.einsum(
        "bg,bd->gd", one_BG, x_BD, preferred_element_type=jnp.float32
      )
      high_GD, low_GD = total_2GD
      sum_GD = high_GD + part_GD
      # TwoSum (Knuth): what rounding took from the sum.
      back_GD = sum_GD - high_GD
      lost_GD = (high_GD - (sum_GD - back_GD)) + (part_GD - back_GD)
      return jnp.stack([sum_GD, low_GD + lost_GD]), None

    zeros_2GD = jnp.zeros((2, groups, d_model), jnp.float32)
    total_2GD, _ = lax.scan(add, zeros_2GD, (x_CBD, group_CB))
    return total_2GD[None]

  counts_B = group_B >= 0
  finite = _finite(x_BD, counts_B)
  sums = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(jax.P(on_mesh.ROWS, None), jax.P(on_mesh.ROWS)),
    out_specs=jax.P(on_mesh.ROWS, None, None, None),
    check_vma=False,
  )(jnp.where(counts_B[:, None], x_BD, 0), group_B)
  whole = jax.NamedSharding(mesh, jax.P())
  return lax.with_sharding_constraint((sums, finite), whole)


def _finite(x_BD: jax.Array, counts_B: jax.Array) -> jax.Array:
  return (jnp.isfinite(x_BD).all(1) | ~counts_B).all()


def _create(place: pathlib.Path, groups: int, latents: int) -> None:
  place.mkdir()
  for name, dtype in _DTYPES.items():
    shape = (groups, latents) if name.endswith("_GF") else (latents,)
    np.lib.format.open_memmap(
      place / f"{name}.npy", mode="w+", dtype=dtype, shape=shape
    )


def _open(place: pathlib.Path, mode: str) -> dict[str, np.ndarray]:
  return {
    name: np.asarray(np.lib.format.open_memmap(place / f"{name}.npy", mode))
    for name in _DTYPES
  }


def _snapshot(working: pathlib.Path, place: pathlib.Path) -> None:
  """Copies the state aside under the number of the batch that follows."""
  aside = place.with_name(f".{place.name}.tmp")
  shutil.rmtree(aside, ignore_errors=True)
  shutil.copytree(working, aside)
  _sync(aside)
  aside.rename(place)
  stem = place.name.rpartition(".")[0]
  for old in place.parent.glob(f"{stem}.*"):
    if old != place:
      shutil.rmtree(old)


def _sync(directory: pathlib.Path) -> None:
  for path in directory.iterdir():
    with open(path, "rb+") as file:
      # The pages that a memory map wrote belong to the file: one sync is all.
      os.fsync(file.fileno())
  artifacts.sync_directory(directory)
  artifacts.sync_directory(directory.parent)


def _write(path: pathlib.Path, save: Callable[..., None], **arrays) -> None:
  """Writes a file of numpy's whole or not at all."""
  data = io.BytesIO()
  save(data, **arrays)
  artifacts.write_bytes_atomic(path, data.getvalue())
