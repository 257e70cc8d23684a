# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""k while it falls from `SaeConfig.k_start` to `SaeConfig.k`.

Arrays have a fixed size where the program is compiled: there are a few programs
with room for a k each, of which a step runs the smallest that will do.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax import sae

_TIMES = 4  # a program's room over that of the next smaller one


def k_at(
  config: sae.SaeConfig,
  step: jax.typing.ArrayLike,
  k: jax.typing.ArrayLike | None = None,
) -> jax.Array | None:
  """k of step `step` (from 0), int32: from `k_start` linearly to k, rounded up.

  `k` takes the place of the config's, which it does not exceed. None where k is
  the same in all steps.
  """
  if config.k_start is None:
    return None
  k = jnp.asarray(config.k if k is None else k, jnp.int32)
  left = 1 - jnp.asarray(step, jnp.float32) / config.k_steps
  more = jnp.maximum(left, 0) * (config.k_start - k)
  return k + jnp.ceil(more).astype(jnp.int32)


def evaluate(
  config: sae.SaeConfig,
  spec: Any,
  k: jax.Array,
  loss: Callable[..., Any],
) -> Any:
  """`loss(spec, k=…)` with the smallest room for `k`, which a step knows.

  `spec` is a `losses.LossSpec`.
  """
  rooms = [config.k]
  while config.k_start is not None and rooms[-1] < config.k_start:
    rooms.append(min(_TIMES * rooms[-1], config.k_start))

  def branch(room):
    return lambda: loss(dataclasses.replace(spec, k=room), k=k)

  return lax.switch(
    jnp.searchsorted(jnp.array(rooms), k), [branch(room) for room in rooms]
  )
