# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How well a dictionary reconstructs a store's rows, and which latents fire.

Reads read chunks of one hook, once. Sums run in float64 on the host over
float32 numbers per row, so the result does not depend on the batch size
beyond float32 rounding of single rows.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, sae, store
from sae_jax.interpret import scan

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

  @property
  def density_F(self) -> np.ndarray:
    """The share of rows on which each latent fired."""
    return self.fires_F / self.rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Totals:
  fires_F: jax.Array  # int32
  sum_F: jax.Array  # float32
  max_F: jax.Array  # float32


def measure(
  dictionary: sae.Sae,
  source: store.Store,
  hook: str,
  chunks: range,
  *,
  mesh: jax.sharding.Mesh,
  batch_rows: int = 8192,
) -> Fidelity:
  """Measures a dictionary on the rows of `chunks`.

  FVU is one minus the explained variance about the mean of the rows
  (Gao et al. 2024, arXiv 2406.04093, "normalized MSE"); with rows shifted by
  the store's mean c, Σ‖x − mean‖² = Σ‖x − c‖² − n‖mean − c‖².

  Raises:
    errors.InputError: the dictionary is not as wide as the hook, or a row or
      a weight is not finite, or all rows are equal.
  """
  _check_width(dictionary, source, hook)
  center_D = jnp.asarray(source.stats(hook).mean_D, jnp.float32)
  latents = dictionary.params.w_dec_FD.shape[0]
  add = _adder(mesh, latents)
  totals, host = _zeros(mesh, latents), _Host(latents, len(center_D))
  waiting = None
  for i, batch in enumerate(
    scan.batches(source, hook, chunks, batch_rows=batch_rows, mesh=mesh)
  ):
    totals, by_row, shift_D = add(
      totals, dictionary, batch.x_BD, center_D, jnp.int32(batch.rows)
    )
    if waiting is not None:
      host.add_rows(*waiting)
    waiting = (by_row, shift_D, batch.rows)
    if (i + 1) % _BATCHES_PER_FLUSH == 0:
      host.add_latents(_replicated(totals, mesh))
      totals = _zeros(mesh, latents)
  host.add_rows(*waiting)
  host.add_latents(_replicated(totals, mesh))
  return host.result(hook)


def _adder(mesh: jax.sharding.Mesh, latents: int):
  """The compiled step: batch -> per-latent totals, per-row numbers."""
  on_latents = jax.NamedSharding(mesh, _latent_spec(mesh, latents))
  everywhere = jax.NamedSharding(mesh, jax.P())
  return jax.jit(
    _add,
    donate_argnums=0,
    out_shardings=(
      _Totals(on_latents, on_latents, on_latents),
      everywhere,
      everywhere,
    ),
  )


def _add(
  totals: _Totals,
  dictionary: sae.Sae,
  x_BD: jax.Array,
  center_D: jax.Array,
  rows: jax.Array,
) -> tuple[_Totals, jax.Array, jax.Array]:
  values_BK, indices_BK = sae.encode(dictionary, x_BD)
  x_hat_BD = sae.decode(dictionary, values_BK, indices_BK).astype(jnp.float32)
  x_BD = x_BD.astype(jnp.float32)
  real_B1 = (jnp.arange(x_BD.shape[0]) < rows)[:, None]
  centered_BD = jnp.where(real_B1, x_BD - center_D[None, :], 0)
  values_BK = jnp.where(real_B1, values_BK.astype(jnp.float32), 0)
  on_BK = values_BK > 0

  norm_B = jnp.linalg.norm(x_BD, axis=-1)
  norm_hat_B = jnp.linalg.norm(x_hat_BD, axis=-1)
  dot_B = jnp.sum(x_BD * x_hat_BD, axis=-1)
  by_row_5B = jnp.stack(
    [
      jnp.sum(jnp.square(x_BD - x_hat_BD), axis=-1),
      jnp.sum(jnp.square(centered_BD), axis=-1),
      _ratio(dot_B, norm_B * norm_hat_B),
      _ratio(norm_hat_B, norm_B),
      jnp.sum(on_BK, axis=-1, dtype=jnp.float32),
    ]
  )
  totals = _Totals(
    fires_F=totals.fires_F.at[indices_BK].add(on_BK.astype(jnp.int32)),
    sum_F=totals.sum_F.at[indices_BK].add(values_BK),
    max_F=totals.max_F.at[indices_BK].max(values_BK),
  )
  return totals, by_row_5B, jnp.sum(centered_BD, axis=0)


class _Host:
  """64-bit sums of what the device returned."""

  def __init__(self, latents: int, d_model: int):
    self.rows = 0
    self.sums_5 = np.zeros(5)
    self.shift_D = np.zeros(d_model)
    self.fires_F = np.zeros(latents, np.int64)
    self.sum_F = np.zeros(latents)
    self.max_F = np.zeros(latents, np.float32)

  def add_rows(self, by_row_5B: jax.Array, shift_D: jax.Array, rows: int):
    self.sums_5 += np.asarray(by_row_5B)[:, :rows].sum(1, dtype=np.float64)
    self.shift_D += np.asarray(shift_D)
    self.rows += rows

  def add_latents(self, totals: _Totals):
    self.fires_F += np.asarray(totals.fires_F)
    self.sum_F += np.asarray(totals.sum_F)
    np.maximum(self.max_F, np.asarray(totals.max_F), out=self.max_F)

  def result(self, hook: str) -> Fidelity:
    error, spread, cosine, ratio, active = map(float, self.sums_5)
    spread -= float(np.sum(np.square(self.shift_D))) / self.rows
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
      mse=error / (self.rows * len(self.shift_D)),
      cosine=cosine / self.rows,
      norm_ratio=ratio / self.rows,
      l0=active / self.rows,
      dead_frac=float(np.mean(self.fires_F == 0)),
      fires_F=self.fires_F,
      mean_F=self.sum_F / fired_F,
      max_F=self.max_F,
    )


def _ratio(a_B: jax.Array, b_B: jax.Array) -> jax.Array:
  """a / b, and 0 where b is 0 (a row of zeros has no direction)."""
  return jnp.where(b_B > 0, a_B / jnp.where(b_B > 0, b_B, 1), 0)


def _latent_spec(mesh: jax.sharding.Mesh, latents: int) -> jax.P:
  return jax.P("latent" if latents % mesh.shape["latent"] == 0 else None)


def _zeros(mesh: jax.sharding.Mesh, latents: int) -> _Totals:
  sharding = jax.NamedSharding(mesh, _latent_spec(mesh, latents))
  make = functools.partial(jnp.zeros, latents, device=sharding)
  return _Totals(make(jnp.int32), make(jnp.float32), make(jnp.float32))


def _replicated(totals: _Totals, mesh: jax.sharding.Mesh) -> _Totals:
  return jax.device_put(totals, jax.NamedSharding(mesh, jax.P()))


def _check_width(dictionary: sae.Sae, source: store.Store, hook: str) -> None:
  d_sae = dictionary.params.w_dec_FD.shape[1]
  if d_sae != source.d_model(hook):
    raise errors.InputError(
      f"the SAE is {d_sae} wide, but {hook} of {source.path} is"
      f" {source.d_model(hook)} wide; give the store and hook of the model it"
      " was trained on"
    )
