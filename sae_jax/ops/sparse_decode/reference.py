# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The definitions: gather all selected rows at once, then contract."""

import jax
import jax.numpy as jnp
from jax import lax


def _gather(indices_BK, w_FD):
  return w_FD.at[indices_BK].get(mode="promise_in_bounds")


def sparse_decode(
  values_BK: jax.Array, indices_BK: jax.Array, w_dec_FD: jax.Array
) -> jax.Array:
  """See `api.sparse_decode`; writes [B, K, D]."""
  return jnp.einsum(
    "bk,bkd->bd",
    values_BK,
    _gather(indices_BK, w_dec_FD),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.promote_types(values_BK.dtype, jnp.float32),
  )


def row_dots(
  x_BD: jax.Array, indices_BK: jax.Array, w_FD: jax.Array
) -> jax.Array:
  """See `api.row_dots`; writes [B, K, D]."""
  return jnp.einsum(
    "bd,bkd->bk",
    x_BD,
    _gather(indices_BK, w_FD),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.promote_types(x_BD.dtype, jnp.float32),
  )
