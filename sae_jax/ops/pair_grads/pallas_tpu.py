# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""TPU: active pairs sorted by latent, their rows summed by a kernel."""

import jax
import jax.numpy as jnp

from sae_jax.ops import dispatch
from sae_jax.ops.pair_grads import active_pairs, cpu, gather_sums_tpu, xla


def pair_grads(
  coef_BK: jax.Array, indices_BK: jax.Array, x_BD: jax.Array, latents: int
) -> jax.Array:
  """See `api.pair_grads`; a row whose coefficients are all zero is not read."""
  if jnp.promote_types(coef_BK.dtype, x_BD.dtype) == jnp.float64:
    return xla.pair_grads(coef_BK, indices_BK, x_BD, latents)
  rows_BSL = gather_sums_tpu.row_tiles(x_BD)
  sizes = gather_sums_tpu.sizes_for([rows_BSL], [], [x_BD.shape[1]])
  pairs = active_pairs.by_latent(
    coef_BK.astype(jnp.float32), indices_BK, latents, sizes.chunk
  )
  return gather_sums_tpu.gather_sums(
    pairs,
    rows_BSL,
    latents,
    x_BD.shape[1],
    sizes=sizes,
    interpret=dispatch.interpret(),
  )


# A TPU adds the elements of a scatter one by one, in a fixed order.
pair_sums = cpu.pair_sums
