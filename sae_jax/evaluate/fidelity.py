# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How well a dictionary reconstructs a store's rows, and which latents fire.

Reads read chunks of one hook, once. Sums run in float64 on the host over
float32 numbers per row, so the result does not depend on the batch size
beyond float32 rounding of single rows.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sae_jax import errors, sae, store
from sae_jax.interpret import on_mesh, scan

# float32 sums and int32 counts per latent move to 64 bits on the host before
# 32 batches of at most 2^20 rows can round or overflow them noticeably.
_BATCHES_PER_FLUSH = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fidelity:
  """Reconstruction and firing over `rows` rows."""

  rows: int
  fvu: float  # Σ‖x − x̂‖² / Σ‖x − mean‖², mean of the same rows
  mse: float  # mean of (x − x̂)² over rows and dimensions
  cosine: float  # mean over rows of cos(x, x̂)
  norm_ratio: float  # mean over rows of ‖x̂‖ / ‖x‖
  l0: float  # mean number of latents above zero
  dead_frac: float  # share of latents that never fired on these rows
  fires_F: np.ndarray  # int64, rows on which the latent fired
  mean_F: np.ndarray  # float64, mean activation where it fired, else 0
  max_F: np.ndarray  # float32, largest activation, 0 if it never fired
  fvu_M: tuple[float, ...] = ()  # of each source of a crosscoder

  @property
  def density_F(self) -> np.ndarray:
    """The share of rows on which each latent fired."""
    return self.fires_F / self.rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Totals:
  fires_LF: jax.Array  # int32
  sum_LF: jax.Array  # float32
  max_LF: jax.Array  # float32


def measure(
  dictionary: sae.Sae,
  source: store.Store,
  hook: str,
  chunks: range,
  *,
  mesh: jax.sharding.Mesh,
  target: str = "",
  batch_rows: int = 8192,
) -> Fidelity:
  """Measures a dictionary on the rows of `chunks`.

  Of a transcoder x is the rows of `target`, and x̂ made of those of `hook`.

  FVU is one minus the explained variance about the mean of the rows
  (Gao et al. 2024, arXiv 2406.04093, "normalized MSE"); with rows shifted by
  the store's mean c, Σ‖x − mean‖² = Σ‖x − c‖² − n‖mean − c‖².

  Raises:
    errors.InputError: the dictionary is not as wide as the hooks, or a row or
      a weight is not finite, or all rows are equal.
  """
  out = target or hook
  _check_width(dictionary, source, hook, out)
  center_E = np.asarray(source.stats(out).mean_D, np.float32)
  dictionary = on_mesh.place(dictionary, mesh)
  add, zeros = _compiled(dictionary, mesh)
  totals = zeros()
  host = _Host(dictionary.latents, dictionary.d_out, dictionary.sources)
  waiting = []  # read one batch late: the device is never waited for

  def batches(hook):
    return scan.batches(source, hook, chunks, batch_rows=batch_rows, mesh=mesh)

  targets = batches(target) if target else itertools.repeat(None)
  for i, (batch, wanted) in enumerate(
    zip(batches(hook), targets, strict=False)
  ):
    y_BE = batch.x_BD if wanted is None else wanted.x_BD
    totals, by_row_NB, shift_E = add(
      totals, dictionary, batch.x_BD, y_BE, center_E, np.int32(batch.rows)
    )
    waiting.append((by_row_NB, shift_E, batch.rows))
    if len(waiting) > 1:
      host.add_rows(*waiting.pop(0))
    if (i + 1) % _BATCHES_PER_FLUSH == 0:
      host.add_latents(jax.device_put(totals, jax.NamedSharding(mesh, jax.P())))
      totals = zeros()
  host.add_rows(*waiting.pop())
  host.add_latents(jax.device_put(totals, jax.NamedSharding(mesh, jax.P())))
  return host.result(out)


def _compiled(dictionary: sae.Sae, mesh: jax.sharding.Mesh):
  """The step, batch -> totals per latent and numbers per row; zero totals.

  Each lane of rows has its own totals: [lanes, F], summed on the host.
  """
  by_latent = jax.P(on_mesh.ROWS, "latent")
  place = functools.partial(jax.NamedSharding, mesh)
  everywhere = place(jax.P())
  shape = (on_mesh.lanes(mesh), dictionary.latents)

  def local(totals, shard, x_BD, y_BE, center_E, rows):
    first = lax.axis_index(on_mesh.ROWS) * x_BD.shape[0]
    real_B = first + jnp.arange(x_BD.shape[0]) < rows
    return _add(totals, shard, x_BD, y_BE, center_E, real_B)

  add = jax.jit(
    jax.shard_map(
      local,
      mesh=mesh,
      in_specs=(
        by_latent,
        on_mesh.specs(dictionary),
        jax.P(on_mesh.ROWS, None),
        jax.P(on_mesh.ROWS, None),
        jax.P(),
        jax.P(),
      ),
      out_specs=(by_latent, jax.P(None, on_mesh.ROWS), jax.P()),
      check_vma=False,
    ),
    donate_argnums=0,
    out_shardings=(place(by_latent), everywhere, everywhere),
  )

  @functools.partial(jax.jit, out_shardings=place(by_latent))
  def zeros():
    return _Totals(
      jnp.zeros(shape, jnp.int32),
      jnp.zeros(shape, jnp.float32),
      jnp.zeros(shape, jnp.float32),
    )

  return add, zeros


def _add(
  totals: _Totals,
  shard: sae.Sae,
  x_BD: jax.Array,
  y_BE: jax.Array,
  center_E: jax.Array,
  real_B: jax.Array,
) -> tuple[_Totals, jax.Array, jax.Array]:
  values_BK, indices_BK = on_mesh.active(shard, x_BD)
  y_hat_BE = on_mesh.decode(shard, values_BK, indices_BK, x_BD)
  y_BE = y_BE.astype(jnp.float32)
  real_B1 = real_B[:, None]
  centered_BE = jnp.where(real_B1, y_BE - center_E[None, :], 0)
  values_BK = jnp.where(real_B1, values_BK, 0)
  on_BK = values_BK > 0
  l0_B = lax.psum(jnp.sum(on_BK, axis=-1), "latent")

  norm_B = jnp.linalg.norm(y_BE, axis=-1)
  norm_hat_B = jnp.linalg.norm(y_hat_BE, axis=-1)
  dot_B = jnp.sum(y_BE * y_hat_BE, axis=-1)
  error_BE = y_BE - y_hat_BE
  by_row_NB = jnp.stack(
    [
      jnp.sum(jnp.square(error_BE), axis=-1),
      jnp.sum(jnp.square(centered_BE), axis=-1),
      _ratio(dot_B, norm_B * norm_hat_B),
      _ratio(norm_hat_B, norm_B),
      l0_B.astype(jnp.float32),
      *_by_source(error_BE, shard.sources),
      *_by_source(centered_BE, shard.sources),
    ]
  )
  totals = _Totals(
    fires_LF=totals.fires_LF.at[0, indices_BK].add(on_BK.astype(jnp.int32)),
    sum_LF=totals.sum_LF.at[0, indices_BK].add(values_BK),
    max_LF=totals.max_LF.at[0, indices_BK].max(values_BK),
  )
  shift_E = lax.psum(jnp.sum(centered_BE, axis=0), on_mesh.ROWS)
  return totals, by_row_NB, shift_E


def _by_source(x_BE: jax.Array, sources: int) -> list[jax.Array]:
  """Squares of every source's part of a row, [B] each; of one source none."""
  if sources == 1:
    return []
  return [
    jnp.sum(jnp.square(part_BE), axis=-1)
    for part_BE in jnp.split(x_BE, sources, axis=1)
  ]


class _Host:
  """64-bit sums of what the device returned."""

  def __init__(self, latents: int, d_out: int, sources: int):
    self.rows = 0
    self.sources = sources if sources > 1 else 0
    self.sums_N = np.zeros(5 + 2 * self.sources)
    self.shift_E = np.zeros(d_out)
    self.fires_F = np.zeros(latents, np.int64)
    self.sum_F = np.zeros(latents)
    self.max_F = np.zeros(latents, np.float32)

  def add_rows(self, by_row_NB: jax.Array, shift_E: jax.Array, rows: int):
    self.sums_N += np.asarray(by_row_NB)[:, :rows].sum(1, dtype=np.float64)
    self.shift_E += np.asarray(shift_E)
    self.rows += rows

  def add_latents(self, totals: _Totals):
    self.fires_F += np.asarray(totals.fires_LF).sum(0)
    self.sum_F += np.asarray(totals.sum_LF).sum(0, dtype=np.float64)
    max_F = np.asarray(totals.max_LF).max(0)
    np.maximum(self.max_F, max_F, out=self.max_F)

  def result(self, hook: str) -> Fidelity:
    error, spread, cosine, ratio, active = map(float, self.sums_N[:5])
    spread -= float(np.sum(np.square(self.shift_E))) / self.rows
    if not (np.isfinite(error) and np.isfinite(spread) and spread > 0):
      raise errors.InputError(
        f"{hook}: over {self.rows} rows the squared error is {error} and the"
        f" variance {spread}; a row or a weight is not finite, or all rows are"
        " equal: run `sae-jax verify` on the store and look at the SAE's"
        " weights"
      )
    fired_F = np.maximum(self.fires_F, 1)
    return Fidelity(
      rows=self.rows,
      fvu=error / spread,
      mse=error / (self.rows * len(self.shift_E)),
      cosine=cosine / self.rows,
      norm_ratio=ratio / self.rows,
      l0=active / self.rows,
      dead_frac=float(np.mean(self.fires_F == 0)),
      fires_F=self.fires_F,
      mean_F=self.sum_F / fired_F,
      max_F=self.max_F,
      fvu_M=self._by_source(),
    )

  def _by_source(self) -> tuple[float, ...]:
    if not self.sources:
      return ()
    error_M, spread_M = self.sums_N[5:].reshape(2, -1)
    shift_M = np.square(self.shift_E).reshape(self.sources, -1).sum(1)
    return tuple((error_M / (spread_M - shift_M / self.rows)).tolist())


def _ratio(a_B: jax.Array, b_B: jax.Array) -> jax.Array:
  """a / b, and 0 where b is 0 (a row of zeros has no direction)."""
  return jnp.where(b_B > 0, a_B / jnp.where(b_B > 0, b_B, 1), 0)


def _check_width(
  dictionary: sae.Sae, source: store.Store, hook: str, target: str
) -> None:
  for name, width, verb in (
    (hook, dictionary.d_model, "takes"),
    (target, dictionary.d_out, "gives"),
  ):
    if width != source.d_model(name):
      raise errors.InputError(
        f"the SAE {verb} rows that are {width} wide, but {name} of"
        f" {source.path} is {source.d_model(name)} wide; give the store and"
        " hook of the model it was trained on"
      )
