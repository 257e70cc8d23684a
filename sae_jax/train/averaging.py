# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The running mean of a dictionary's weights, which is what is exported.

Gao et al. (2024) keep an exponential mean (their code: with decay 0.999). It
takes as much memory as the parameters and is one part of the optimizer's state.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sae_jax import sae


class Average(NamedTuple):
  """The part of the optimizer's state."""

  count: jax.Array  # int32, steps done
  params: sae.Params


def average(decay: float) -> optax.GradientTransformation:
  """The last part of a chain: leaves updates as they are and follows them."""

  def init(params):
    # Buffers of its own: the step donates both.
    return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

  def update(updates, state, params):
    moved: Any = optax.apply_updates(params, updates)
    return updates, follow(state, moved, decay)

  functions: Any = (init, update)
  return optax.GradientTransformation(*functions)


def follow(state: Average, params: sae.Params, decay: float) -> Average:
  """The mean with the parameters after a step.

  `Σ_i decay^(t−i) θ_i / Σ_i decay^(t−i)` over steps i = 1 … t: as with Adam's
  moments what was there at first does not count, and runs shorter than 1 / (1 −
  decay) steps have the mean over all of them.
  """
  count = jnp.asarray(optax.safe_increment(state.count))
  # 1 − decay^t, without cancellation.
  weight = -jnp.expm1(count.astype(jnp.float32) * math.log(decay))
  rate = jnp.minimum((1 - decay) / weight, 1)
  # XLA would compute new weights once more, with other roundings.
  params = lax.optimization_barrier(params)
  moved = jax.tree.map(lambda m, p: m + rate * (p - m), state.params, params)
  return Average(count, moved)


def averaged(opt_state: Any, params: sae.Params) -> sae.Params:
  """The mean of the weights; the weights where no mean is kept.

  Decoder rows are put back to norm 1, which a mean of such rows falls short of.
  Of a stacked state, too.
  """
  for part in opt_state:
    if isinstance(part, Average):
      return _on_sphere(part.params)
  return params


@jax.jit
def _on_sphere(params):
  norm = jnp.linalg.norm(params.w_dec_FD, axis=-1, keepdims=True)
  # Of a member that has diverged rows may be zero.
  w_dec = params.w_dec_FD / jnp.where(norm > 0, norm, 1)
  return dataclasses.replace(params, w_dec_FD=w_dec)
