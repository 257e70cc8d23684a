# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Adam for a dictionary whose decoder rows stay on the unit sphere.

One optax chain: remove each decoder row's radial gradient, Adam, learning rate,
put the rows back on the sphere. `make_apply` does the same in one pass over
each matrix. Every part is local to a latent's row, so both run on sharded
parameters without communication, but for the norm of the gradient.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sae_jax import errors, ops, sae
from sae_jax.ops import dispatch
from sae_jax.train import averaging

Apply = Callable[..., tuple[sae.Params, optax.OptState, jax.Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """Adam and its schedule.

  There is no gradient clipping: with a radial projection and Adam's own scaling
  the published TopK recipes do without (Gao et al. 2024). A step that goes
  wrong shows as a non-finite `train/loss`, which stops the run.
  """

  learning_rate: float | None = None  # None: 2e-4 / sqrt(latents / 2**14)
  warmup_steps: int = 1000  # linear, from lr / warmup_steps
  decay_fraction: float = 0.2  # of all steps, at the end, linear towards 0
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  # Of a running mean of the weights, which is then what is looked at and
  # exported; 0.999 is usual. It takes as much memory as the weights. 0: none.
  ema_decay: float = 0.0

  def __post_init__(self):
    rate = self.learning_rate
    if rate is not None and not (math.isfinite(rate) and rate > 0):
      raise errors.InputError(
        f"optimizer.learning_rate={rate}: need a number > 0, or None for"
        " 2e-4 / sqrt(latents / 2**14)"
      )
    if self.warmup_steps < 0:
      raise errors.InputError(
        f"optimizer.warmup_steps={self.warmup_steps}: need 0 or more"
      )
    if not 0 <= self.decay_fraction <= 1:
      raise errors.InputError(
        f"optimizer.decay_fraction={self.decay_fraction}: need 0 to 1"
      )
    for name in ("b1", "b2", "ema_decay"):
      value = getattr(self, name)
      if not 0 <= value < 1:
        raise errors.InputError(
          f"optimizer.{name}={value}: need 0 <= {name} < 1"
        )
    if not (math.isfinite(self.eps) and self.eps > 0):
      raise errors.InputError(f"optimizer.eps={self.eps}: need a number > 0")


def resolve_learning_rate(config: OptimizerConfig, latents: int) -> float:
  """The peak rate: as given, or 2e-4 / sqrt(latents / 2^14) (Gao et al.)."""
  if config.learning_rate is not None:
    return config.learning_rate
  return 2e-4 / math.sqrt(latents / 2**14)


def schedule(
  config: OptimizerConfig, *, latents: int, steps: int
) -> optax.Schedule:
  """Step (from 0) → rate: linear warm-up, constant, linear decay.

  Step i < warmup_steps has (i + 1) / warmup_steps of the peak, the last step
  has 1 / decay_steps of it; where the two overlap the smaller one holds.
  """
  peak = resolve_learning_rate(config, latents)
  return lambda step: rate_at(config, step, peak=peak, steps=steps)


def rate_at(
  config: OptimizerConfig,
  step: jax.typing.ArrayLike,
  *,
  peak: jax.typing.ArrayLike,
  steps: int,
) -> jax.Array:
  """The rate of `schedule` at a step, with a peak that may be an array."""
  warmup = config.warmup_steps
  decay = round(config.decay_fraction * steps)
  step = jnp.asarray(step, jnp.float32)
  up = (step + 1) / max(warmup, 1) if warmup else 1.0
  down = (steps - step) / max(decay, 1) if decay else 1.0
  return jnp.multiply(peak, jnp.clip(jnp.minimum(up, down), 0.0, 1.0))


def remove_radial() -> optax.GradientTransformation:
  """Removes from each decoder row's gradient its component along the row.

  Moving along the row would be undone by the renormalisation, but would enter
  Adam's moments.
  """

  def update(updates, params):
    grad_FD, row_FD = updates.w_dec_FD, params.w_dec_FD
    along_F1 = jnp.sum(grad_FD * row_FD, axis=1, keepdims=True)
    square_F1 = jnp.sum(row_FD * row_FD, axis=1, keepdims=True)
    return dataclasses.replace(
      updates, w_dec_FD=grad_FD - along_F1 / square_F1 * row_FD
    )

  return optax.stateless(update)


def keep_unit_rows() -> optax.GradientTransformation:
  """Changes the update so that decoder rows have norm 1 after it.

  And thresholds, where there are any, move √D times as far, and not below 0.
  Adam moves each number by about the rate, a row of D numbers of the encoder by
  √D times that, and with it the pre-activations of rows x whose numbers are of
  size 1. Where rows have norm 1 instead, and thresholds the same rate as all
  else (Gemma Scope, arXiv:2408.05147), it comes to the same.
  """

  def update(updates, params):
    moved_FD = params.w_dec_FD + updates.w_dec_FD
    norm_F1 = jnp.linalg.norm(moved_FD, axis=1, keepdims=True)
    changed: dict[str, Any] = {"w_dec_FD": moved_FD / norm_F1 - params.w_dec_FD}
    if params.threshold_F is not None:
      far_F = _threshold_gain(params) * updates.threshold_F
      changed["threshold_F"] = jnp.maximum(far_F, -params.threshold_F)
    return dataclasses.replace(updates, **changed)

  return optax.stateless(update)


def _threshold_gain(params: sae.Params) -> float:
  return math.sqrt(params.d_model)


def make_optimizer(
  config: OptimizerConfig, *, latents: int, steps: int
) -> optax.GradientTransformation:
  """The whole chain for `sae.Params`; `steps` is the length of the run.

  The definition of the step. `make_apply` makes it faster, on the same state.
  """
  parts = [
    remove_radial(),
    optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps),
    optax.scale_by_learning_rate(
      schedule(config, latents=latents, steps=steps)
    ),
    keep_unit_rows(),
  ]
  if config.ema_decay:
    parts.append(averaging.average(config.ema_decay))
  return optax.chain(*parts)


def make_apply(
  config: OptimizerConfig,
  mesh: jax.sharding.Mesh,
  *,
  latents: int,
  steps: int,
  implementation: str | None = None,
) -> Apply:
  """`apply(grads, opt_state, params, peak)`: new params, new state, Σ g².

  What `make_optimizer(...).update` and `optax.apply_updates` do together, up to
  rounding, on a state of the same structure, with each matrix and its moments
  read and written once (`ops.sphere_adam`). Σ g² is of the shard's part of the
  gradient as it came; it adds up over `latent`. `peak`: another peak than the
  config's, or None. To be called inside a `shard_map` over the mesh, with a
  shard's part of everything.

  Args:
    config: the optimizer.
    mesh: `(sae, data, latent)`.
    latents: F, for the default learning rate.
    steps: the length of the run.
    implementation: of the operation; None: by the mesh's platform.
  """
  own_peak = resolve_learning_rate(config, latents)
  platform = mesh.devices.flat[0].platform
  move = _make_move(config, implementation or dispatch.for_platform(platform))

  def apply(grads, opt_state, params, peak=None):
    radial, adam, scale, unit, *mean = opt_state
    count = optax.safe_increment(adam.count)
    peak = own_peak if peak is None else peak
    rate = rate_at(config, scale.count, peak=peak, steps=steps)
    params, mu, nu, square = move(params, grads, adam.mu, adam.nu, rate, count)
    adam = adam._replace(count=count, mu=mu, nu=nu)
    scale = scale._replace(count=optax.safe_increment(scale.count))
    mean = [averaging.follow(m, params, config.ema_decay) for m in mean]
    return params, (radial, adam, scale, unit, *mean), square

  return apply


def _make_move(config, implementation):
  """`(params, grads, mu, nu, rate, count) -> (params, mu, nu, Σ g²)`."""
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
        move_other = functools.partial(thresholds, _threshold_gain(params))
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


def state_sharding(
  optimizer: optax.GradientTransformation,
  params: sae.Params,
  params_sharding: sae.Params,
  replicated: jax.sharding.Sharding,
) -> optax.OptState:
  """Shardings of the optimizer's state: moments lie like their parameters."""
  return optax.tree.map_params(
    optimizer.init,
    lambda _, sharding: sharding,
    jax.eval_shape(optimizer.init, params),
    params_sharding,
    transform_non_params=lambda _: replicated,
  )
