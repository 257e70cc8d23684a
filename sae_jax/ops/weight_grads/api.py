# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`weight_grads`: what the backward pass of a top-k autoencoder comes to."""

import functools

import jax
import jax.numpy as jnp

from sae_jax.ops import dispatch
from sae_jax.ops.pair_grads import api as pair_grads_api
from sae_jax.ops.sparse_decode import api as sparse_decode_api
from sae_jax.ops.sparse_decode import compacted


def _composed(implementation):
  """One operation after another."""
  compacted_dots = implementation in ("xla", "pallas_gpu")

  def run(values_BK, indices_BK, w_dec_FD, x_BD, grad_BD, dots_BK):
    latents = w_dec_FD.shape[0]
    how = {"implementation": implementation}
    if dots_BK is None and compacted_dots:
      dots_BK = compacted.active_row_dots(
        grad_BD, indices_BK, w_dec_FD, values_BK
      )
    elif dots_BK is None:
      dots_BK = sparse_decode_api.row_dots(grad_BD, indices_BK, w_dec_FD, **how)
    dots_BK = jnp.where(values_BK != 0, dots_BK, 0)
    return (
      pair_grads_api.pair_grads(dots_BK, indices_BK, x_BD, latents, **how),
      pair_grads_api.pair_grads(values_BK, indices_BK, grad_BD, latents, **how),
      pair_grads_api.pair_sums(dots_BK, indices_BK, latents, **how),
    )

  return run


IMPLEMENTATIONS = {
  **{name: _composed(name) for name in pair_grads_api.GRADS},
  "pallas_tpu": dispatch.when_called(
    f"{__package__}.pallas_tpu", "weight_grads"
  ),
}


@functools.partial(jax.jit, static_argnames=("implementation",))
def weight_grads(
  values_BK: jax.Array,
  indices_BK: jax.Array,
  w_dec_FD: jax.Array,
  x_BD: jax.Array,
  grad_BD: jax.Array,
  dots_BK: jax.Array | None = None,
  *,
  implementation: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Gradients of encoder rows, decoder rows and encoder bias.

  Of `out[b] = Σ_k values[b, k] · w_dec[indices[b, k]]`, where `values` are a
  top-k of `x · w_encᵀ + b_enc` and a zero is not active:

      dots[b, k] = grad[b] · w_dec[indices[b, k]]   where values[b, k] ≠ 0
      w_enc[f]   = Σ_{b,k: indices[b,k] = f} dots[b, k] · x[b]
      w_dec[f]   = Σ_{b,k: indices[b,k] = f} values[b, k] · grad[b]
      b_enc[f]   = Σ_{b,k: indices[b,k] = f} dots[b, k]

  Deterministic and exact at any skew, as `pair_grads` is.

  Args:
    values_BK: active values; zero where a slot is not active.
    indices_BK: latents in [0, F); distinct within a row.
    w_dec_FD: decoder rows.
    x_BD: what the encoder was given.
    grad_BD: gradient with respect to `out`.
    dots_BK: the products above if they are known already, from
      `ops.residual`; implementations that get them for less ignore these.
    implementation: a name in `IMPLEMENTATIONS`, or None for the platform's own.

  Returns:
    grad_w_enc_FD, grad_w_dec_FD, grad_b_enc_F; float32 (float64 for float64).
  """
  run = dispatch.choose("weight_grads", IMPLEMENTATIONS, implementation)
  arrays = (values_BK, indices_BK, w_dec_FD, x_BD, grad_BD)
  return run(*map(jnp.asarray, arrays), dots_BK)
