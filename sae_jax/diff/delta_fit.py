# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How much of paired differences a dictionary of them explains.

Reads the batches of one name of the evidence. Squares are added per row in
float32 on the devices, then in float64; an unfinished pass is kept in
`problem.work`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import ops, sae
from sae_jax.diff import config as config_lib
from sae_jax.diff import dictionary_pass, resampling, sums
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh

_FOLD = 32  # batches between two additions to the host's float64 sums


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
  groups = problem.evidence.groups
  return dictionary_pass.run(
    problem,
    name,
    problem.work / f"fit.{name}.npz",
    Fit(
      np.zeros(groups), np.zeros(groups), np.zeros(problem.dictionary.latents)
    ),
    local=_local,
    per_latent=(),
    fold=_FOLD,
    add_rows=_add_rows,
    add_latents=_add_latents,
  )


def _add_rows(found: Fit, by_row_2B: jax.Array, groups: jax.Array) -> None:
  error_B, square_B = np.asarray(by_row_2B, np.float64)
  group_B = np.asarray(groups)
  inside_B = group_B >= 0
  for total_G, value_B in (
    (found.error_G, error_B),
    (found.square_G, square_B),
  ):
    np.add.at(total_G, group_B[inside_B], value_B[inside_B])


def _add_latents(found: Fit, unique_F: np.ndarray) -> None:
  found.unique_F[:] += unique_F


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
