# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How much of paired differences a dictionary of them explains.

Reads the batches of one name of the evidence. Squares are added per row in
float32 on the devices, then in float64; an unfinished pass is kept in
`problem.work`.
"""

import dataclasses
import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import artifacts, ops, sae
from sae_jax.diff import config as config_lib
from sae_jax.diff import problem as problem_lib
from sae_jax.diff import resampling, sums
from sae_jax.interpret import on_mesh

_FOLD = 32  # batches between two additions to the host's float64 sums
_SECONDS = 60  # between two savings of an unfinished pass


@dataclasses.dataclass(frozen=True)
class Fit:
  """Sums over rows in scope.

  Attributes:
    error_G: squared error of the reconstruction, by group.
    square_G: squared norm, by group.
    unique_F: by how much the squared error grows if the latent is left out of
      the reconstruction and the others stay as they are.
  """

  error_G: np.ndarray
  square_G: np.ndarray
  unique_F: np.ndarray


@dataclasses.dataclass(frozen=True)
class Explained:
  """Shares of the variance of differences about their mean.

  Attributes:
    mean_D: the mean difference.
    mean_share: its part of the mean square, which a constant would explain.
    unique_F: what is lost without one latent, the others left as they are.
    share: of all latents together, with an interval over groups; None where
      the differences do not vary.
  """

  mean_D: np.ndarray
  mean_share: float
  unique_F: np.ndarray
  share: dict[str, float | None]


def explained(problem: problem_lib.Problem, name: str) -> Explained:
  """What the dictionary explains of the differences called `name`."""
  fitted = fit(problem, name)
  n_G = np.asarray(problem.evidence.group_rows_G, np.float64)
  sums_GD = sums.activation_sums(problem, name)
  mean_D = sums_GD.sum(0) / n_G.sum()
  square = float(mean_D @ mean_D)
  whole = fitted.square_G.sum()
  spread_G = fitted.square_G - 2 * sums_GD @ mean_D + n_G * square
  spread = spread_G.sum()
  return Explained(
    mean_D=mean_D,
    mean_share=float(n_G.sum() * square / whole) if whole else 0.0,
    unique_F=fitted.unique_F / spread if spread > 0 else fitted.unique_F * 0,
    share=share(
      fitted.error_G[n_G > 0], spread_G[n_G > 0], problem.config.statistics
    ),
  )


def share(
  error_G: np.ndarray,
  spread_G: np.ndarray,
  config: config_lib.StatisticsConfig,
) -> dict[str, float | None]:
  """1 − Σ error / Σ spread, with a bootstrap interval over groups."""
  if spread_G.sum() <= 0:
    return {"share": None, "ci_low": None, "ci_high": None}
  draws = resampling.draw(config.seed, len(error_G), 1, config.resamples)
  error_R, spread_R = draws.weight_RG @ error_G, draws.weight_RG @ spread_G
  kept_R = spread_R > 0
  tail = (1 - config.confidence) / 2
  low, high = np.quantile(
    1 - error_R[kept_R] / spread_R[kept_R], [tail, 1 - tail]
  )
  return {
    "share": float(1 - error_G.sum() / spread_G.sum()),
    "ci_low": float(low),
    "ci_high": float(high),
  }


def fit(problem: problem_lib.Problem, name: str) -> Fit:
  """Reconstructs every row of a name of the evidence with the dictionary."""
  path = problem.work / f"fit.{name}.npz"
  evidence, mesh = problem.evidence, problem.mesh
  dictionary = on_mesh.place(problem.dictionary, mesh)
  start, found = _restore(path, evidence.groups, dictionary.latents)
  add, zeros = _compiled(mesh, dictionary.latents)
  unique_LF = zeros()
  progress = problem.progress(evidence.num_batches, f"batches of {name}")
  saved = time.monotonic()
  waiting = []  # read one batch late, so that the devices are not waited for
  for batch in evidence.batches(name, start):
    unique_LF, by_row_2B = add(unique_LF, dictionary, batch.x_BD, batch.group_B)
    waiting.append((by_row_2B, batch.group_B))
    done = batch.index + 1
    # At fixed batches, so that a resumed pass ends with the same bits.
    fold = not done % _FOLD or done == evidence.num_batches
    while len(waiting) > (0 if fold else 1):
      _add_rows(found, *waiting.pop(0))
    progress.update(done)
    if fold:
      found.unique_F[:] += np.asarray(unique_LF, np.float64).sum(0)
      unique_LF = zeros()
    late = time.monotonic() - saved > _SECONDS
    if fold and (late or done == evidence.num_batches):
      _save(path, done, found)
      saved = time.monotonic()
  progress.close()
  return found


def _add_rows(found: Fit, by_row_2B: jax.Array, groups: jax.Array) -> None:
  error_B, square_B = np.asarray(by_row_2B, np.float64)
  group_B = np.asarray(groups)
  inside_B = group_B >= 0
  for total_G, value_B in (
    (found.error_G, error_B),
    (found.square_G, square_B),
  ):
    np.add.at(total_G, group_B[inside_B], value_B[inside_B])


@functools.cache
def _compiled(mesh: jax.sharding.Mesh, latents: int):
  """The step, batch -> totals per latent and squares per row; zero totals."""
  by_latent = jax.P(on_mesh.ROWS, "latent")
  place = functools.partial(jax.NamedSharding, mesh)

  def step(unique_LF, dictionary, x_BD, group_B):
    return jax.shard_map(
      _local,
      mesh=mesh,
      in_specs=(
        by_latent,
        on_mesh.specs(dictionary),
        jax.P(on_mesh.ROWS, None),
        jax.P(on_mesh.ROWS),
      ),
      out_specs=(by_latent, jax.P(None, on_mesh.ROWS)),
      check_vma=False,
    )(unique_LF, dictionary, x_BD, group_B)

  add = jax.jit(
    step, donate_argnums=0, out_shardings=(place(by_latent), place(jax.P()))
  )

  @functools.partial(jax.jit, out_shardings=place(by_latent))
  def zeros():
    return jnp.zeros((on_mesh.lanes(mesh), latents), jnp.float32)

  return add, zeros


def _local(unique_LF, shard: sae.Sae, x_BD, group_B):
  values_BK, indices_BK = on_mesh.active(shard, x_BD)
  values_BK = jnp.where(group_B[:, None] >= 0, values_BK, 0)
  x_BD = x_BD.astype(jnp.float32)
  rest_BD = x_BD - on_mesh.decode(shard, values_BK, indices_BK, x_BD)

  # ‖r + v d‖² − ‖r‖² = 2 v (d·r) + v² ‖d‖²; the products d·r of the active
  # latents are the gradient of the decoder's output with respect to v.
  def decode(values_BK):
    return ops.sparse_decode(values_BK, indices_BK, shard.params.w_dec_FD)

  _, pull = jax.vjp(decode, values_BK)
  (along_BK,) = pull(rest_BD)
  square_F = jnp.sum(jnp.square(shard.params.w_dec_FD), axis=1)
  unique_BK = values_BK * (2 * along_BK + values_BK * square_F[indices_BK])
  by_row_2B = jnp.stack(
    [jnp.sum(jnp.square(rest_BD), axis=1), jnp.sum(jnp.square(x_BD), axis=1)]
  )
  return unique_LF.at[0, indices_BK].add(unique_BK), by_row_2B


def _restore(path: pathlib.Path, groups: int, latents: int) -> tuple[int, Fit]:
  """The next batch and the sums before it."""
  if not path.exists():
    return 0, Fit(np.zeros(groups), np.zeros(groups), np.zeros(latents))
  with np.load(path, allow_pickle=False) as file:
    arrays = [file[field.name] for field in dataclasses.fields(Fit)]
    return int(file["next"]), Fit(*arrays)


def _save(path: pathlib.Path, following: int, found: Fit) -> None:
  artifacts.write_npz_atomic(
    path, {"next": following, **dataclasses.asdict(found)}
  )
