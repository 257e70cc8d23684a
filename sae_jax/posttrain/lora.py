# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The trainable arrays of a low-rank adapter, by name.

Names are a weight's path in a block with `.a` or `.b`, such as
`attention.w_q_NHD.a`; every array has a leading axis over adapted layers.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from sae_jax import errors
from sae_jax.lm import config as config_lib
from sae_jax.lm import low_rank
from sae_jax.lm import weights as weights_lib
from sae_jax.posttrain import config as sft_config

Arrays = dict[str, jax.Array]


def abstract_params(
  model: config_lib.ModelConfig,
  lora: sft_config.LoraConfig,
  mesh: jax.sharding.Mesh,
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes, dtypes and shardings: axes are split as those of the weight are.

  Raises:
    errors.InputError: the model has no such layers or weights.
  """
  first, last = lora.layers or (0, model.num_layers - 1)
  if last >= model.num_layers:
    raise errors.InputError(
      f"lora.layers={lora.layers}: the model's layers are 0 to"
      f" {model.num_layers - 1}"
    )
  decoder = weights_lib.abstract_decoder(model, mesh, jnp.float32)
  weights: dict[str, Any] = dict(weights_lib.named(decoder))
  found = {}
  for target in lora.targets:
    path, ins = low_rank.TARGETS[target]
    weight = weights.get(f"blocks.{path}")
    if weight is None:
      continue  # gate, which the config says is passed over
    count = last + 1 - first
    shape = weight.shape[1:]
    # A replicated weight's spec is empty.
    axes = (*weight.sharding.spec[1:], *[None] * len(shape))[: len(shape)]
    for name, size, spec in (
      ("a", (lora.rank, *shape[-ins:]), (None, *axes[-ins:])),
      ("b", (*shape[:-ins], lora.rank), (*axes[:-ins], None)),
    ):
      found[f"{path}.{name}"] = jax.ShapeDtypeStruct(
        (count, *size),
        jnp.float32,
        sharding=jax.NamedSharding(mesh, jax.P(None, *spec)),
      )
  if not found:
    raise errors.InputError(
      f"lora.targets={lora.targets}: a {model.family} has none of them; give"
      f" some of {', '.join(low_rank.TARGETS)}"
    )
  return found


def new_params(
  model: config_lib.ModelConfig,
  lora: sft_config.LoraConfig,
  mesh: jax.sharding.Mesh,
  seed: int,
) -> Arrays:
  """A as `LoraConfig` says, B zero: at first the model is what it was."""
  abstract = abstract_params(model, lora, mesh)

  def make(key):
    arrays = {}
    for i, (name, x) in enumerate(abstract.items()):
      if name.endswith(".b"):
        arrays[name] = jnp.zeros(x.shape, x.dtype)
        continue
      bound = 1 / math.sqrt(math.prod(x.shape[2:]))
      arrays[name] = jax.random.uniform(
        jax.random.fold_in(key, i), x.shape, x.dtype, -bound, bound
      )
    return arrays

  shardings = {name: x.sharding for name, x in abstract.items()}
  return jax.jit(make, out_shardings=shardings)(jax.random.key(seed))


def adapter(lora: sft_config.LoraConfig, params: Arrays) -> low_rank.Adapter:
  """The adapter that these arrays are."""

  def part(ending: str) -> Arrays:
    return {
      name.removesuffix(ending): x
      for name, x in params.items()
      if name.endswith(ending)
    }

  first = lora.layers[0] if lora.layers else 0
  return low_rank.Adapter(
    a=part(".a"), b=part(".b"), first=first, scale=lora.scale
  )
