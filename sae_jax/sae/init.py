# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Initial parameters, created in the sharding that they are trained in.

Values depend on the seed and the latent's number only, never on the mesh.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sae_jax import errors
from sae_jax.sae import config as config_lib
from sae_jax.sae import crosscoder, dictionary


def params_sharding(
  mesh: jax.sharding.Mesh, params: dictionary.Params | None = None
) -> dictionary.Params:
  """Latents are split over `latent`; everything is replicated over `data`.

  Of the arrays that `params` has (it may be abstract); None: a TopK
  dictionary's.
  """
  return jax.tree.map(
    lambda spec: jax.NamedSharding(mesh, spec),
    dictionary.partition_specs(params),
  )


def unit_rows(
  key: jax.Array, first: jax.Array, count: int, d_model: int
) -> jax.Array:
  """Random unit vectors for latents first … first+count−1, [count, D] float32.

  Row f is drawn from `fold_in(key, f)` alone.
  """

  def draw(latent):
    return jax.random.normal(jax.random.fold_in(key, latent), (d_model,))

  rows_FD = jax.vmap(draw)(first + jnp.arange(count))
  return rows_FD / jnp.linalg.norm(rows_FD, axis=1, keepdims=True)


def init_params(
  b_dec_D: np.ndarray,
  latents: int,
  seed: int,
  mesh: jax.sharding.Mesh,
  partition: crosscoder.Partition | None = None,
) -> dictionary.Params:
  """`w_enc = w_dec` with random unit rows, zero `b_enc`, the given `b_dec`.

  Those of a crosscoder have the form of its `partition`. Each device draws its
  own rows; no host or device holds the whole matrix.

  Raises:
    errors.InputError: the latents do not divide evenly over the mesh.
  """
  shards = mesh.shape["latent"]
  check_shards(latents, shards)
  d_model = b_dec_D.shape[0]

  def draw_shard():
    count = latents // shards
    first = lax.axis_index("latent") * count
    rows_FD = unit_rows(jax.random.key(seed), first, count, d_model)
    if partition is None or partition.sources == 1:
      return rows_FD
    return crosscoder.initial_rows(rows_FD, partition, first)

  draw = jax.shard_map(
    draw_shard,
    mesh=mesh,
    in_specs=(),
    out_specs=jax.P("latent", None),
    check_vma=False,
  )

  @functools.partial(jax.jit, out_shardings=params_sharding(mesh))
  def create(b_dec_D):
    w_dec_FD = draw()
    return dictionary.Params(
      w_enc_FD=w_dec_FD,
      w_dec_FD=jnp.copy(w_dec_FD),  # two buffers: the step donates both
      b_enc_F=jnp.zeros((latents,), jnp.float32),
      b_dec_D=b_dec_D,
    )

  return create(np.asarray(b_dec_D, np.float32))


def latent_values(config: config_lib.SaeConfig) -> dict[str, float]:
  """What latents of this kind have besides a bias, and begin with, by name.

  Gated ones begin with magnitudes that are what their gates are.
  """
  if config.activation == "jumprelu":
    return {"threshold_F": config.initial_threshold}
  if config.activation == "gated":
    return {"log_gain_F": 0.0, "b_mag_F": 0.0}
  return {}


def with_latent_values(
  params: dictionary.Params,
  config: config_lib.SaeConfig,
  mesh: jax.sharding.Mesh,
) -> dictionary.Params:
  """Params with the arrays of `latent_values`; of dense kinds a short encoder.

  About half of the latents of dense kinds are active at first. With w_enc =
  (D/F) w_dec, as in Anthropic's January 2025 update, they add up to the size of
  x and not to F/D times that. Initial thresholds are relative to D/F too.
  """
  if config.activation not in config_lib.DENSE:
    return params
  shrink = min(1.0, params.d_model / params.latents)
  values = latent_values(config)
  if "threshold_F" in values:
    values["threshold_F"] *= shrink
  changed = {"w_enc_FD": params.w_enc_FD, "b_enc_F": params.b_enc_F}
  place = jax.NamedSharding(mesh, jax.P("latent"))

  @functools.partial(
    jax.jit,
    donate_argnums=0,
    out_shardings=(jax.tree.map(lambda a: a.sharding, changed), place),
  )
  def fill(changed):
    shape = (config.latents,)
    filled = {n: jnp.full(shape, v, jnp.float32) for n, v in values.items()}
    return jax.tree.map(lambda a: shrink * a, changed), filled

  changed, filled = fill(changed)
  return dataclasses.replace(params, **changed, **filled)


def check_shards(latents: int, shards: int) -> None:
  """Refuses latents that do not divide evenly over the mesh's latent axis."""
  if latents % shards:
    raise errors.InputError(
      f"sae.latents={latents} does not divide over mesh.latent={shards};"
      f" use {latents // shards * shards or shards} or"
      f" {-(-latents // shards) * shards} latents, or another mesh.latent"
    )


def mean(x_ND: np.ndarray) -> np.ndarray:
  """The mean row, summed in float64, as float32."""
  return np.asarray(np.mean(x_ND, axis=0, dtype=np.float64), np.float32)


def geometric_median(
  x_ND: np.ndarray, *, tolerance: float = 1e-5, max_iterations: int = 100
) -> np.ndarray:
  """The point with the least summed distance to the rows, [D] float32.

  Weiszfeld's iteration from the mean, in float64, until a step is shorter than
  `tolerance` times the mean distance. Rows that the iterate falls on get the
  weight of a distance of 1e-6 times the mean one. Robust against rows of
  outlying norm (used for `b_dec` by Gao et al. 2024, App. A.1).
  """
  x_ND = np.asarray(x_ND, np.float32)
  point_D = np.mean(x_ND, axis=0, dtype=np.float64)
  for _ in range(max_iterations):
    distance_N = _distances(x_ND, point_D)
    spread = distance_N.mean()
    if spread == 0:
      break
    weight_N = 1 / np.maximum(distance_N, 1e-6 * spread)
    weight_N /= weight_N.sum()
    new_D = sum(
      weight_N[i : i + _ROWS] @ x_ND[i : i + _ROWS].astype(np.float64)
      for i in range(0, len(x_ND), _ROWS)
    )
    moved = np.linalg.norm(new_D - point_D)
    point_D = new_D
    if moved <= tolerance * spread:
      break
  return np.asarray(point_D, np.float32)


_ROWS = 4096  # rows that are held in float64 at once


def _distances(x_ND, point_D):
  return np.concatenate(
    [
      np.linalg.norm(x_ND[i : i + _ROWS] - point_D[None, :], axis=1)
      for i in range(0, len(x_ND), _ROWS)
    ]
  )
