# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One pass of a dictionary over rows of the evidence, adding things up.

Sums of latents are float32 on the devices for a few batches, then float64 on
the host; an unfinished pass is kept in a file and goes on to the same bits.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh

T = TypeVar("T")

_SECONDS = 60  # between two savings of an unfinished pass


def run(
  problem: problem_lib.Problem,
  name: str,
  path: pathlib.Path,
  found: T,
  *,
  local: Callable[..., tuple[jax.Array, jax.Array]],
  per_latent: tuple[int, ...],
  fold: int,
  add_rows: Callable[[T, jax.Array, jax.Array], None],
  add_latents: Callable[[T, np.ndarray], None],
) -> T:
  """Adds all rows of `name` to `found`, a dataclass of float64 arrays.

  Args:
    problem: evidence, dictionary and mesh.
    name: of the evidence.
    path: the npz file that an unfinished or finished pass is kept in.
    found: zeros; what is in `path` takes their place.
    local: `(sums, shard, x_BD, group_B) -> (sums, by_row_NB)` inside
      `shard_map`, a function of a module; sums are [1, *per_latent, F] of a
      shard, by_row_NB numbers per row that are complete.
    per_latent: how many sums a latent has.
    fold: batches between two additions to the host's float64 sums.
    add_rows: `(found, by_row_NB, group_B)`; a group < 0 is out of scope.
    add_latents: `(found, sums)`, float64 [*per_latent, F].

  Returns:
    `found`, or what was restored in its place.
  """
  evidence = problem.evidence
  dictionary = on_mesh.place(problem.dictionary, problem.mesh)
  start, found = _restore(path, found)
  add, zeros = _compiled(local, problem.mesh, (*per_latent, dictionary.latents))
  sums = zeros()
  progress = problem.progress(evidence.num_batches, f"batches of {name}")
  saved = time.monotonic()
  waiting = []  # read one batch late, so that the devices are not waited for
  for batch in evidence.batches(name, start):
    sums, by_row_NB = add(sums, dictionary, batch.x_BD, batch.group_B)
    waiting.append((by_row_NB, batch.group_B))
    done = batch.index + 1
    # At fixed batches, so that a resumed pass ends with the same bits.
    folds = not done % fold or done == evidence.num_batches
    while len(waiting) > (0 if folds else 1):
      add_rows(found, *waiting.pop(0))
    progress.update(done)
    if folds:
      add_latents(found, np.asarray(sums, np.float64).sum(0))
      sums = zeros()
    late = time.monotonic() - saved > _SECONDS
    if folds and (late or done == evidence.num_batches):
      _save(path, done, found)
      saved = time.monotonic()
  progress.close()
  return found


@functools.cache
def _compiled(local, mesh: jax.sharding.Mesh, shape: tuple[int, ...]):
  """The step, batch -> sums of latents and numbers per row; zeros."""
  by_latent = jax.P(on_mesh.ROWS, *(None,) * (len(shape) - 1), "latent")
  place = functools.partial(jax.NamedSharding, mesh)

  def step(sums, dictionary, x_BD, group_B):
    return jax.shard_map(
      local,
      mesh=mesh,
      in_specs=(
        by_latent,
        on_mesh.specs(dictionary),
        jax.P(on_mesh.ROWS, None),
        jax.P(on_mesh.ROWS),
      ),
      out_specs=(by_latent, jax.P(None, on_mesh.ROWS)),
      check_vma=False,
    )(sums, dictionary, x_BD, group_B)

  add = jax.jit(
    step, donate_argnums=0, out_shardings=(place(by_latent), place(jax.P()))
  )

  @functools.partial(jax.jit, out_shardings=place(by_latent))
  def zeros():
    return jnp.zeros((on_mesh.lanes(mesh), *shape), jnp.float32)

  return add, zeros


def _restore(path: pathlib.Path, found: Any) -> tuple[int, Any]:
  """The next batch and the sums before it."""
  if not path.exists():
    return 0, found
  with np.load(path, allow_pickle=False) as file:
    arrays = {f.name: file[f.name] for f in dataclasses.fields(found)}
    return int(file["next"]), type(found)(**arrays)


def _save(path: pathlib.Path, following: int, found: Any) -> None:
  artifacts.write_npz_atomic(
    path, {"next": following, **dataclasses.asdict(found)}
  )
