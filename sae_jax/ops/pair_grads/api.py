# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`pair_grads` and `pair_sums`: sums over the pairs (row, latent)."""

import functools

import jax
import jax.numpy as jnp

from sae_jax.ops import dispatch
from sae_jax.ops.pair_grads import cpu, reference, xla

GRADS = {
  "reference": reference.pair_grads,
  "cpu": cpu.pair_grads,
  "xla": xla.pair_grads,
  "pallas_tpu": dispatch.when_called(f"{__package__}.pallas_tpu", "pair_grads"),
  "pallas_gpu": xla.pair_grads,  # no kernel of its own
}
SUMS = {
  "reference": reference.pair_sums,
  "cpu": cpu.pair_sums,
  "xla": xla.pair_sums,
  "pallas_tpu": dispatch.when_called(f"{__package__}.pallas_tpu", "pair_sums"),
  "pallas_gpu": xla.pair_sums,
}


@functools.partial(jax.jit, static_argnames=("latents", "implementation"))
def pair_grads(
  coef_BK: jax.Array,
  indices_BK: jax.Array,
  x_BD: jax.Array,
  latents: int,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """`out[f] = Σ_{b,k: indices[b,k] = f} coef[b, k] · x[b]`, [F, D].

  The gradient of an encoder or decoder matrix through a top-k. Every latent's
  sum has one owner and a fixed order, so two runs agree to the bit; any skew
  is exact, from a latent that every row selects to one that none does.

  Args:
    coef_BK: one coefficient per pair.
    indices_BK: latents in [0, F); distinct within a row.
    x_BD: the row that each pair scales.
    latents: F.
    implementation: a name in `GRADS`, or None for the platform's own.

  Returns:
    [F, D] float32 (float64 for float64 coefficients).
  """
  grads = dispatch.choose("pair_grads", GRADS, implementation)
  return grads(*map(jnp.asarray, (coef_BK, indices_BK, x_BD)), latents)


@functools.partial(jax.jit, static_argnames=("latents", "implementation"))
def pair_sums(
  coef_BK: jax.Array,
  indices_BK: jax.Array,
  latents: int,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """`out[f] = Σ_{b,k: indices[b,k] = f} coef[b, k]`, [F]; see `pair_grads`."""
  sums = dispatch.choose("pair_sums", SUMS, implementation)
  return sums(jnp.asarray(coef_BK), jnp.asarray(indices_BK), latents)
