# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What an implementation of the encoder found, and a bound on what it missed.

Fast kernels keep a few of the best latents of every bucket of latents. That
misses a winner when too many of them share a bucket, and says so.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Candidates:
  """The k best latents of every row among those that were kept.

  `values_BK` descend, equal values by latent; `bound_B`: no latent that was
  dropped has a larger pre-activation. None: nothing that matters was dropped.
  """

  values_BK: jax.Array  # float32
  indices_BK: jax.Array  # int32
  bound_B: jax.Array | None = None

  def certified(self, kth_B: jax.Array) -> jax.Array:
    """Whether all rows hold every latent that reaches `kth_B`, a bool.

    Strict, as a dropped latent that ties with the k-th may be the lower one;
    but of latents that are masked it does not matter which are named.
    Kernels report a NaN as +inf, so a row that is not finite is not certified
    and the exact path shows what is wrong with it.
    """
    if self.bound_B is None:
      return jnp.ones((), bool)
    finite_B = self.values_BK[:, 0] < jnp.inf
    complete_B = (self.bound_B < kth_B) | (self.bound_B == -jnp.inf)
    return jnp.all(complete_B & finite_B)
