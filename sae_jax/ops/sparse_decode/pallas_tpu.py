# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""TPU: decoder rows summed by the kernel of the weight gradients.

Owners are batch rows here. A decoder row is read once per active pair and never
written; gathering it outside a kernel would write and read it once more.
"""

import jax
import jax.numpy as jnp

from sae_jax.ops import dispatch
from sae_jax.ops.pair_grads import active_pairs, gather_sums_tpu
from sae_jax.ops.sparse_decode import chunked


def sparse_decode(
  values_BK: jax.Array, indices_BK: jax.Array, w_dec_FD: jax.Array
) -> jax.Array:
  """See `api.sparse_decode`; rows of zero values are not read."""
  if jnp.promote_types(values_BK.dtype, w_dec_FD.dtype) == jnp.float64:
    return chunked.sparse_decode_xla(values_BK, indices_BK, w_dec_FD)
  rows_FSL = gather_sums_tpu.row_tiles(w_dec_FD)
  sizes = gather_sums_tpu.sizes_for([rows_FSL], [], [w_dec_FD.shape[1]])
  pairs = active_pairs.by_row(
    values_BK.astype(jnp.float32), indices_BK, sizes.chunk
  )
  return gather_sums_tpu.gather_sums(
    pairs,
    rows_FSL,
    *(values_BK.shape[0], w_dec_FD.shape[1]),
    sizes=sizes,
    interpret=dispatch.interpret(),
  )


def residual(
  values_BK: jax.Array,
  indices_BK: jax.Array,
  w_dec_FD: jax.Array,
  target_BD: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """See `api.residual`.

  `ops.weight_grads` gets the products for less on a TPU; where it is what comes
  next, they are dead code here and XLA removes them.
  """
  error_BD = sparse_decode(values_BK, indices_BK, w_dec_FD) - target_BD
  return error_BD, chunked.row_dots_xla(error_BD, indices_BK, w_dec_FD)
