# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""TPU: one list of pairs and one kernel for both matrices and the bias.

In the order of latents, a decoder row is read once for all of its pairs, and
`grad` rows serve the products as well as the decoder's gradient. HBM traffic is
two rows per active pair and one pass over the matrices.
"""

import jax
import jax.numpy as jnp

from sae_jax.ops import dispatch
from sae_jax.ops.pair_grads import (
  active_pairs,
  gather_sums_kernel,
  gather_sums_tpu,
)
from sae_jax.ops.pair_grads import xla as pair_xla
from sae_jax.ops.sparse_decode import chunked


def weight_grads(
  values_BK: jax.Array,
  indices_BK: jax.Array,
  w_dec_FD: jax.Array,
  x_BD: jax.Array,
  grad_BD: jax.Array,
  dots_BK: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """See `api.weight_grads`; computes the products itself."""
  arrays = (values_BK, w_dec_FD, x_BD, grad_BD)
  if jnp.result_type(*arrays) == jnp.float64:
    return _float64(values_BK, indices_BK, w_dec_FD, x_BD, grad_BD)
  del dots_BK
  latents, width = w_dec_FD.shape
  sources = [gather_sums_tpu.row_tiles(a) for a in (x_BD, grad_BD)]
  widths = [x_BD.shape[1], width, gather_sums_kernel.LANES]
  sizes = gather_sums_tpu.sizes_for(sources, [width], widths)
  pairs = active_pairs.by_latent(
    values_BK.astype(jnp.float32), indices_BK, latents, sizes.chunk
  )
  w_enc_FD, w_dec_FD, b_enc_FL = gather_sums_tpu.walk(
    _addends,
    pairs,
    sources,
    [w_dec_FD.astype(jnp.float32)],
    latents,
    widths,
    sizes=sizes,
    interpret=dispatch.interpret(),
    name="weight_grads",
  )
  return w_enc_FD, w_dec_FD, b_enc_FL[:, 0]


def _addends(value, rows, owned):
  x_SL, grad_SL = rows
  dot_11 = jnp.sum(grad_SL * owned[0], keepdims=True)
  return (
    dot_11 * x_SL,
    value * grad_SL,
    jnp.broadcast_to(dot_11, (8, gather_sums_kernel.LANES)),
  )


def _float64(values_BK, indices_BK, w_dec_FD, x_BD, grad_BD):
  dots_BK = chunked.row_dots_xla(grad_BD, indices_BK, w_dec_FD)
  dots_BK = jnp.where(values_BK != 0, dots_BK, 0)
  latents = w_dec_FD.shape[0]
  return (
    pair_xla.pair_grads(dots_BK, indices_BK, x_BD, latents),
    pair_xla.pair_grads(values_BK, indices_BK, grad_BD, latents),
    pair_xla.pair_sums(dots_BK, indices_BK, latents),
  )
