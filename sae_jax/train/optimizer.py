# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Adam for a dictionary whose decoder rows stay on the unit sphere.

One optax chain: remove each decoder row's radial gradient, Adam, learning rate,
put the rows back on the sphere. `one_pass` does the same with each matrix read
and written once. Every part is local to a latent's row, so both run on sharded
parameters without communication, but for the norm of the gradient.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sae_jax import errors, sae
from sae_jax.train import averaging

_WARMUP = 1000  # steps
_PEAK, _PEAK_LATENTS = 2e-4, 2**14  # Gao et al. 2024
# Below so many steps the peak rises, to so many times that at most.
_SHORT_RUN, _FASTER = 3000, 2.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """Adam and its schedule.

  There is no gradient clipping: with a radial projection and Adam's own scaling
  the published TopK recipes do without (Gao et al. 2024). A step that goes
  wrong shows as a non-finite `train/loss`, which stops the run.
  """

  # Peak; None: 2e-4 / sqrt(latents / 2**14), in short runs 2.5 times that.
  learning_rate: float | None = None
  # Linear, from lr / warmup_steps; None: 1,000, at most a twentieth of the run.
  warmup_steps: int | None = None
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
        " 2e-4 / sqrt(latents / 2**14), more in short runs"
      )
    if self.warmup_steps is not None and self.warmup_steps < 0:
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


def resolve_learning_rate(
  config: OptimizerConfig, latents: int, steps: int
) -> float:
  """The peak rate: as given, or 2e-4 / √(latents / 2^14) (Gao et al. 2024).

  That was found in long runs. One of fewer than 3,000 steps ends before latents
  have gone far, so its rate is 3,000 / steps times that, at most 2.5 times; at
  5 times, and in longer runs, latents die of it (benchmarks/quality.md).
  """
  if config.learning_rate is not None:
    return config.learning_rate
  rate = _PEAK / math.sqrt(latents / _PEAK_LATENTS)
  return rate * min(_FASTER, max(1.0, _SHORT_RUN / steps))


def steps_to_turn(
  config: OptimizerConfig, latents: int, d_model: int, steps: int
) -> int:
  """Steps in which a latent can turn altogether, at the peak rate.

  Adam moves a weight by about the rate; those of a row of norm 1 are about
  1 / √D.
  """
  rate = resolve_learning_rate(config, latents, steps)
  return min(2**31 - 1, math.ceil(1 / (rate * math.sqrt(d_model))))


def resolve_warmup(config: OptimizerConfig, steps: int) -> int:
  """Steps of the warm-up: as given, or 1,000, at most a twentieth of the run.

  With 1,000 of 1,200 steps 0.191 of the variance stayed unexplained where
  other rates with 60 left 0.12 (benchmarks/quality.md).
  """
  if config.warmup_steps is not None:
    return config.warmup_steps
  return min(_WARMUP, steps // 20)


def schedule(
  config: OptimizerConfig, *, latents: int, steps: int
) -> optax.Schedule:
  """Step (from 0) → rate: linear warm-up, constant, linear decay.

  Step i < warmup_steps has (i + 1) / warmup_steps of the peak, the last step
  has 1 / decay_steps of it; where the two overlap the smaller one holds.
  """
  peak = resolve_learning_rate(config, latents, steps)
  return lambda step: rate_at(config, step, peak=peak, steps=steps)


def rate_at(
  config: OptimizerConfig,
  step: jax.typing.ArrayLike,
  *,
  peak: jax.typing.ArrayLike,
  steps: int,
) -> jax.Array:
  """The rate of `schedule` at a step, with a peak that may be an array."""
  warmup = resolve_warmup(config, steps)
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
      far_F = threshold_gain(params) * updates.threshold_F
      changed["threshold_F"] = jnp.maximum(far_F, -params.threshold_F)
    return dataclasses.replace(updates, **changed)

  return optax.stateless(update)


def threshold_gain(params: sae.Params) -> float:
  """How much farther thresholds move than other numbers."""
  return math.sqrt(params.d_model)


def make_optimizer(
  config: OptimizerConfig, *, latents: int, steps: int
) -> optax.GradientTransformation:
  """The whole chain for `sae.Params`; `steps` is the length of the run.

  The definition of the step. `one_pass.make_apply` makes it faster, on the same
  state.
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
