# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One fine-tuning step: loss, gradient and AdamW on float32 master weights.

Products run in the model's own dtype. Compiled once per model shape and recipe,
so that many short runs share it; the learning rate is an argument.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sae_jax import lm
from sae_jax.lm import config as config_lib
from sae_jax.lm import low_rank
from sae_jax.lm import model as model_lib
from sae_jax.lm import weights as weights_lib
from sae_jax.posttrain import config as sft_config
from sae_jax.posttrain import data
from sae_jax.posttrain import lora as lora_lib

# Logits of so many positions of each sequence at a time; more would be the
# largest arrays of the step (8 x 512 positions x 128 K words: 2 GiB).
_POSITIONS_AT_ONCE = 128


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SftState:
  """What a step changes; with the step's number it is all there is."""

  step: jax.Array  # int32, steps done
  params: dict[str, jax.Array]  # float32 masters by name
  opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Everything that a compiled step depends on."""

  model: config_lib.ModelConfig
  dtype: jnp.dtype
  mesh: jax.sharding.Mesh
  weight_decay: float
  grad_clip: float
  b1: float
  b2: float
  eps: float
  remat: bool
  lora: sft_config.LoraConfig | None


TrainStep = Callable[
  [SftState, model_lib.Decoder, data.Batch, jax.Array],
  tuple[SftState, dict[str, jax.Array]],
]


def recipe(model: lm.LanguageModel, config: sft_config.SftConfig) -> Recipe:
  return Recipe(
    model=model.config,
    dtype=model.dtype,
    mesh=model.mesh,
    weight_decay=config.weight_decay,
    grad_clip=config.grad_clip,
    b1=config.b1,
    b2=config.b2,
    eps=config.eps,
    remat=config.remat,
    lora=config.lora,
  )


def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
  """AdamW but for the learning rate, which the step multiplies by."""
  parts = [
    optax.scale_by_adam(b1=recipe.b1, b2=recipe.b2, eps=recipe.eps),
    optax.add_decayed_weights(recipe.weight_decay, mask=_decays),
  ]
  if recipe.grad_clip:
    parts.insert(0, optax.clip_by_global_norm(recipe.grad_clip))
  return optax.chain(*parts)


def _decays(params: dict[str, Any]) -> dict[str, bool]:
  """Matrices decay; norms, biases and the position table do not."""
  return {
    name: "norm" not in name
    and not name.rpartition(".")[2].startswith("b_")
    and name != "position_PD"
    for name in params
  }


def learning_rate(config: sft_config.SftConfig, steps: int, step: int) -> float:
  """Step i < warmup has (i + 1) / warmup of the peak; the last has 1 / steps
  of it, with a straight line between the peak and 0 at `steps`.
  """
  up = (step + 1) / config.warmup_steps if config.warmup_steps else 1.0
  down = (steps - step) / max(steps - config.warmup_steps, 1)
  return config.learning_rate * min(up, down, 1.0)


@functools.lru_cache(maxsize=16)
def make_train_step(recipe: Recipe) -> TrainStep:
  """Compiles-on-first-call `train_step(state, model, batch, rate)`.

  The state is donated and keeps its shardings. Scalars (float32, on the
  device): `train/loss`, mean nats per learned token of the batch, and
  `train/grad_norm` before the limit.
  """
  optimizer = make_optimizer(recipe)
  shardings = state_sharding(recipe)
  replicated = jax.NamedSharding(recipe.mesh, jax.P())

  @functools.partial(
    jax.jit, donate_argnums=0, out_shardings=(shardings, replicated)
  )
  def train_step(state, model, batch, rate):
    def loss_fn(params):
      decoder, adapter = assemble(recipe, model, params)
      return mean_loss(
        decoder, batch, recipe.mesh, adapter=adapter, remat=recipe.remat
      )

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params: Any = jax.tree.map(
      lambda value, update: value - rate * update, state.params, updates
    )
    scalars = {"train/loss": loss, "train/grad_norm": optax.tree.norm(grads)}
    return SftState(state.step + 1, params, opt_state), scalars

  return train_step


def mean_loss(
  model: model_lib.Decoder,
  batch: data.Batch,
  mesh: jax.sharding.Mesh,
  *,
  adapter: low_rank.Adapter | None = None,
  remat: bool = False,
) -> jax.Array:
  """Mean of -log p over the learned tokens of the batch, float32."""
  out = lm.forward(
    model,
    batch.tokens_BT,
    batch.mask_BT,
    want_logits=False,
    mesh=mesh,
    adapter=adapter,
    remat=remat,
  )
  h_BMD = jnp.take_along_axis(out.resid_BTD, batch.at_BM[..., None], axis=1)
  b, m, d = h_BMD.shape

  def score(part):
    h_BmD, target_Bm = part
    logits_BmV = model.unembed(h_BmD)
    chosen_Bm1 = jnp.take_along_axis(logits_BmV, target_Bm[..., None], axis=-1)
    return jax.nn.logsumexp(logits_BmV, axis=-1) - chosen_Bm1[..., 0]

  if m <= _POSITIONS_AT_ONCE:
    nll_BM = score((h_BMD, batch.target_BM))
  else:
    short = -m % _POSITIONS_AT_ONCE
    h_BMD = jnp.pad(h_BMD, ((0, 0), (0, short), (0, 0)))
    target_BM = jnp.pad(batch.target_BM, ((0, 0), (0, short)))
    parts = (
      jnp.moveaxis(h_BMD.reshape(b, -1, _POSITIONS_AT_ONCE, d), 1, 0),
      jnp.moveaxis(target_BM.reshape(b, -1, _POSITIONS_AT_ONCE), 1, 0),
    )
    # Without the checkpoint the logits of all positions would be kept.
    nll_xBm = jax.lax.map(jax.checkpoint(score), parts)
    nll_BM = jnp.moveaxis(nll_xBm, 0, 1).reshape(b, -1)[:, :m]
  return jnp.sum(nll_BM * batch.weight_BM)


def assemble(
  recipe: Recipe, model: model_lib.Decoder, params: dict[str, jax.Array]
) -> tuple[model_lib.Decoder, low_rank.Adapter | None]:
  """What is trained, in the recipe's dtype: a new decoder or an adapter."""
  if recipe.lora is not None:
    return model, lora_lib.adapter(recipe.lora, params)
  cast = {name: value.astype(recipe.dtype) for name, value in params.items()}
  return weights_lib.replaced(model, cast), None


@functools.lru_cache(maxsize=16)
def make_finished(recipe: Recipe):
  """Compiles `finished(model, params)`: the decoder with what was learned."""
  decoder = weights_lib.abstract_decoder(
    recipe.model, recipe.mesh, recipe.dtype
  )

  @functools.partial(
    jax.jit, out_shardings=jax.tree.map(lambda x: x.sharding, decoder)
  )
  def finished(model, params):
    decoder, adapter = assemble(recipe, model, params)
    return decoder if adapter is None else low_rank.merge(decoder, adapter)

  return finished


def abstract_state(recipe: Recipe) -> SftState:
  """Shapes, dtypes and shardings of the state."""
  shapes: dict[str, Any] = {}
  if recipe.lora is not None:
    shapes |= lora_lib.abstract_params(recipe.model, recipe.lora, recipe.mesh)
  else:
    decoder = weights_lib.abstract_decoder(
      recipe.model, recipe.mesh, jnp.float32
    )
    shapes |= weights_lib.named(decoder)
  replicated = jax.NamedSharding(recipe.mesh, jax.P())

  def placed(x, like=None):
    sharding = replicated if like is None else like.sharding
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

  optimizer = make_optimizer(recipe)
  opt_state = optax.tree.map_params(
    optimizer.init,
    placed,
    jax.eval_shape(optimizer.init, shapes),
    shapes,
    transform_non_params=placed,
  )
  step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated)
  return SftState(
    step=step,
    params=shapes,
    opt_state=opt_state,
  )


def state_sharding(recipe: Recipe) -> SftState:
  return jax.tree.map(lambda x: x.sharding, abstract_state(recipe))


def new_state(recipe: Recipe, model: model_lib.Decoder, seed: int) -> SftState:
  """The state before the first step; `seed` is that of an adapter."""
  shardings = state_sharding(recipe)
  if recipe.lora is not None:
    params = lora_lib.new_params(recipe.model, recipe.lora, recipe.mesh, seed)
  else:
    # Copies, since steps donate the state.
    params = {
      name: jnp.copy(value.astype(jnp.float32))
      for name, value in weights_lib.named(model).items()
    }
  params = jax.device_put(params, shardings.params)
  init = jax.jit(make_optimizer(recipe).init, out_shardings=shardings.opt_state)
  return SftState(
    step=jax.device_put(jnp.int32(0), shardings.step),
    params=params,
    opt_state=init(params),
  )
