# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The optimizer's step with each matrix and its moments read and written once.

What it computes is `optimizer.make_optimizer`'s, on the same state; here it is
fast, by `ops.sphere_adam`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sae_jax import ops, sae
from sae_jax.ops import dispatch
from sae_jax.train import averaging
from sae_jax.train import optimizer as optimizer_lib

Apply = Callable[..., tuple[sae.Params, optax.OptState, jax.Array]]


def make_apply(
  config: optimizer_lib.OptimizerConfig,
  mesh: jax.sharding.Mesh,
  *,
  latents: int,
  steps: int,
  implementation: str | None = None,
) -> Apply:
  """`apply(grads, opt_state, params, peak, scale)`: new params, state, Σ g².

  What `optimizer.make_optimizer(...).update` and `optax.apply_updates` do
  together with `scale * grads`, up to rounding, on a state of the same
  structure. Σ g² is of the shard's part of the gradient as it came; it adds up
  over `latent`. `peak`: another peak than the config's, or None. To be called
  inside a `shard_map` over the mesh, with a shard's part of everything.

  Args:
    config: the optimizer.
    mesh: `(sae, data, latent)`.
    latents: F, for the default learning rate.
    steps: the length of the run.
    implementation: of the operation; None: by the mesh's platform.
  """
  own_peak = optimizer_lib.resolve_learning_rate(config, latents, steps)
  platform = mesh.devices.flat[0].platform
  move = _make_move(config, implementation or dispatch.for_platform(platform))

  def apply(grads, opt_state, params, peak=None, scale=1.0):
    radial, adam, by_rate, unit, *mean = opt_state
    count = optax.safe_increment(adam.count)
    peak = own_peak if peak is None else peak
    rate = optimizer_lib.rate_at(config, by_rate.count, peak=peak, steps=steps)
    params, mu, nu, square = move(
      params, grads, adam.mu, adam.nu, rate, count, scale
    )
    adam = adam._replace(count=count, mu=mu, nu=nu)
    by_rate = by_rate._replace(count=optax.safe_increment(by_rate.count))
    mean = [averaging.follow(m, params, config.ema_decay) for m in mean]
    return params, (radial, adam, by_rate, unit, *mean), square

  return apply


def _make_move(config, implementation):
  """`(params, grads, mu, nu, rate, count, scale) -> (params, mu, nu, Σ g²)`."""
  adam = functools.partial(
    ops.sphere_adam, b1=config.b1, b2=config.b2, eps=config.eps
  )
  matrix = functools.partial(adam, implementation=implementation)
  whole = functools.partial(matrix, unit_rows=False)

  def vector(row, grad, mu, nu, *scalars):
    # A few kilobytes: one row of a matrix, without a kernel.
    arrays = (array[None] for array in (row, grad, mu, nu))
    moved = adam(*arrays, *scalars, unit_rows=False, implementation="reference")
    return jax.tree.map(lambda a: a[0] if a.ndim else a, moved)

  def thresholds(gain, row, grad, mu, nu, rate, *scalars):
    moved = vector(row, grad, mu, nu, gain * rate, *scalars)
    return dataclasses.replace(moved, row_FD=jnp.maximum(moved.row_FD, 0))

  def move(params, grads, mu, nu, *scalars):
    def old(name):
      return (
        *(getattr(tree, name) for tree in (params, grads, mu, nu)),
        *scalars,
      )

    b_enc = vector(*old("b_enc_F"))
    b_dec = vector(*old("b_dec_D"))
    # The biases' gradients are the last to read the matrices: b_dec's reads
    # w_enc, b_enc's reads w_dec. Sums that start with them come after.
    first = _on_first_shard()
    w_enc = matrix(
      *old("w_enc_FD"), jnp.where(first, b_dec.grad_square, 0), unit_rows=False
    )
    w_dec = matrix(*old("w_dec_FD"), b_enc.grad_square, unit_rows=True)
    moved = {
      "w_enc_FD": w_enc,
      "w_dec_FD": w_dec,
      "b_enc_F": b_enc,
      "b_dec_D": b_dec,
    }
    square = w_enc.grad_square + w_dec.grad_square
    for name in _others(params):
      move_other = vector if name.endswith("_F") else whole
      if name == "threshold_F":
        move_other = functools.partial(
          thresholds, optimizer_lib.threshold_gain(params)
        )
      moved[name] = move_other(*old(name))
      square += jnp.where(
        first | name.endswith("_F"), moved[name].grad_square, 0
      )

    def new(field):
      arrays = {name: getattr(m, field) for name, m in moved.items()}
      return sae.Params(**arrays)

    return new("row_FD"), new("mu_FD"), new("nu_FD"), square

  return move


def square_sum(grads: sae.Params) -> jax.Array:
  """Σ g² as `make_apply` gives it, before anything is changed.

  For those who must know whether it is finite: it reads the gradient once more.
  """

  def square(array):
    # Per row first: two short sums round less than one over all elements.
    return jnp.sum(jnp.sum(array * array, axis=-1))

  b_dec = jnp.where(_on_first_shard(), square(grads.b_dec_D), 0)
  matrices = square(grads.w_enc_FD) + square(grads.w_dec_FD)
  total = matrices + square(grads.b_enc_F) + b_dec
  for name in _others(grads):
    own = square(getattr(grads, name))
    total += (
      own if name.endswith("_F") else jnp.where(_on_first_shard(), own, 0)
    )
  return total


def _others(params: sae.Params) -> list[str]:
  """The arrays that `params` has besides those of a TopK dictionary."""
  return [
    field.name
    for field in dataclasses.fields(params)
    if field.default is None and getattr(params, field.name) is not None
  ]


def _on_first_shard():
  """Where `b_dec`, which is on every shard, is counted."""
  return lax.axis_index("latent") == 0
