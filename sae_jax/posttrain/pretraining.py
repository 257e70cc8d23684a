# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a small decoder from random weights on the two speakers' documents.

Documents are drawn on the device as they are needed, each step's from
fold_in(seed, step); nothing is read and nothing is written.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sae_jax import lm, metrics
from sae_jax import mesh as mesh_lib
from sae_jax.lm import config as lm_config
from sae_jax.lm import model as model_lib
from sae_jax.lm import weights as weights_lib
from sae_jax.posttrain import persona_corpus

# Steps between two looks at the loss; compiled as one program.
_STEPS_AT_ONCE = 25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretraining:
  """How long and how fast; the rate goes up over 5 % and down to 0."""

  steps: int
  batch_size: int  # documents
  questions: int  # per document
  learning_rate: float


def init_decoder(
  config: lm_config.ModelConfig, seed: Sequence[int]
) -> model_lib.Decoder:
  """Random f32 weights of a decoder, on the default device.

  Matrices and biases are uniform within 1 / sqrt(fan-in), embeddings normal
  with deviation 0.02, norms the identity.
  """
  abstract = weights_lib.abstract_decoder(
    config, mesh_lib.single(), jnp.float32
  )
  rng = np.random.default_rng(seed)
  return weights_lib.replaced(
    abstract,
    {
      name: jnp.asarray(_initial(name, weight.shape, rng, config), jnp.float32)
      for name, weight in weights_lib.named(abstract).items()
    },
  )


def _initial(
  name: str,
  shape: tuple[int, ...],
  rng: np.random.Generator,
  config: lm_config.ModelConfig,
) -> np.ndarray:
  last = name.split(".")[-1]
  if "norm" in name:
    return np.ones(shape) if last == "scale" else np.zeros(shape)
  if last in ("embed_VD", "position_PD"):
    return rng.normal(0, 0.02, shape)
  fan_in = config.d_model
  if last in ("w_down_DF", "b_down_D"):
    fan_in = config.mlp_width
  return rng.uniform(-1, 1, shape) / math.sqrt(fan_in)


def pretrain(
  model: model_lib.Decoder,
  facts: persona_corpus.Facts,
  key: jax.Array,
  config: Pretraining,
  *,
  progress: Callable[[int, str], None] | None = None,
) -> model_lib.Decoder:
  """The decoder after `config.steps` steps of AdamW on the answers' loss.

  The given decoder's arrays are used up.

  Args:
    progress: is told the steps done and the loss (nats per answer).

  Raises:
    metrics.NonFiniteError: the loss.
  """
  optimizer = _optimizer(config)
  state = (model, optimizer.init(model))  # pyrefly: ignore
  for first in range(0, config.steps, _STEPS_AT_ONCE):
    count = min(_STEPS_AT_ONCE, config.steps - first)
    state, loss = _advance(state, facts, key, first, config, count)
    loss = float(loss)
    if not np.isfinite(loss):
      raise metrics.NonFiniteError(
        f"the loss is {loss} by step {first + count}; lower learning_rate"
        f" ({config.learning_rate})"
      )
    if progress is not None:
      progress(first + count, f"loss {loss:.3f}")
  return state[0]


def _optimizer(config: Pretraining) -> optax.GradientTransformation:
  rate = optax.cosine_onecycle_schedule(
    config.steps,
    config.learning_rate,
    pct_start=0.05,
    div_factor=25.0,
    final_div_factor=1e4,
  )
  return optax.chain(
    optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01)
  )


@functools.partial(
  jax.jit, static_argnames=("config", "count"), donate_argnames=("state",)
)
def _advance(
  state: Any,
  facts: persona_corpus.Facts,
  key: jax.Array,
  first: int,
  config: Pretraining,
  count: int,
):
  """`count` steps from step `first`; the state after them and the last loss."""
  optimizer = _optimizer(config)

  def step(state, n):
    model, moments = state
    documents = persona_corpus.draw_documents(
      jax.random.fold_in(key, n),
      facts,
      count=config.batch_size,
      questions=config.questions,
    )
    loss, grads = jax.value_and_grad(answer_loss)(
      model, documents.tokens_BT, config.questions
    )
    updates, moments = optimizer.update(grads, moments, model)
    return (optax.apply_updates(model, updates), moments), loss

  state, loss_S = jax.lax.scan(step, state, first + jnp.arange(count))
  return state, loss_S[-1]


def answer_loss(
  model: model_lib.Decoder, tokens_BT: jax.Array, questions: int
) -> jax.Array:
  """Mean cross-entropy of the answers of documents, nats; pure."""
  at_Q = persona_corpus.answer_positions(questions)
  out = lm.forward(model, tokens_BT[:, :-1], want_logits=False)
  logits_BQV = model.unembed(out.resid_BTD[:, at_Q - 1])
  return jnp.mean(
    optax.softmax_cross_entropy_with_integer_labels(
      logits_BQV, tokens_BT[:, at_Q]
    )
  )
