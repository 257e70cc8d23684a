# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The definitions: gather all selected rows at once, then contract."""

import jax
import jax.numpy as jnp
from jax import lax


def _gather(indices_BK, w_FD):
  return w_FD.at[indices_BK].get(mode="promise_in_bounds")


def _contract(subscripts, a, rows_BKD):
  return jnp.einsum(
    subscripts,
    a,
    rows_BKD,
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.promote_types(a.dtype, jnp.float32),
  )


def sparse_decode(
  values_BK: jax.Array, indices_BK: jax.Array, w_dec_FD: jax.Array
) -> jax.Array:
  """See `api.sparse_decode`; writes [B, K, D]."""
  return _contract("bk,bkd->bd", values_BK, _gather(indices_BK, w_dec_FD))


def row_dots(
  x_BD: jax.Array, indices_BK: jax.Array, w_FD: jax.Array
) -> jax.Array:
  """See `api.row_dots`; writes [B, K, D]."""
  return _contract("bd,bkd->bk", x_BD, _gather(indices_BK, w_FD))


def residual(
  values_BK: jax.Array,
  indices_BK: jax.Array,
  w_dec_FD: jax.Array,
  target_BD: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """See `api.residual`; writes [B, K, D]."""
  rows_BKD = _gather(indices_BK, w_dec_FD)
  error_BD = _contract("bk,bkd->bd", values_BK, rows_BKD) - target_BD
  return error_BD, _contract("bd,bkd->bk", error_BD, rows_BKD)
