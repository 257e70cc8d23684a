# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How much likelier a model finds one response than the other, and why.

The margin of a prompt is mean-token log p(behaviour) − mean-token log
p(contrast), in nats. Its gradient is taken at the hook.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import lm
from sae_jax.diff import pairs
from sae_jax.diff import problem as problem_lib
from sae_jax.interpret import on_mesh
from sae_jax.judge import likelihood
from sae_jax.lm import model as model_lib


def group_gradients(problem: problem_lib.Problem, name: str) -> np.ndarray:
  """Gradient of the margin at the hook, float64 [G, D], kept for a resume.

  Row g is the mean over the group's pairs of d margin / d v, where v is a
  vector added at every token in scope of both sequences: nats per token of the
  response, per unit of v. So its product with a decoder row predicts to first
  order what steering by that latent does to the margin. Groups are those of
  `pairs.group_pairs`.

  Args:
    problem: with prompts that have both responses, and live models.
    name: "base" or an arm.

  Raises:
    errors.InputError: no such model or pairs, or the gradient is not finite.
  """
  hook = problem.evidence.hook

  def compute(model: lm.LanguageModel, batch: pairs.PairBatch) -> jax.Array:
    return _pair_gradients(
      model.model, *pairs.placed(batch, model.mesh), hook=hook, mesh=model.mesh
    )

  return pairs.group_means(
    problem, name, f"gradients.{name}", problem.evidence.d_model, compute
  )


def margins(problem: problem_lib.Problem, name: str) -> np.ndarray:
  """The margin in nats per token, float64 [G], mean over each group's pairs.

  Args:
    problem: with prompts that have both responses, and live models.
    name: "base" or an arm.

  Raises:
    errors.InputError: no such model or pairs, or a margin is not finite.
  """

  def compute(model: lm.LanguageModel, batch: pairs.PairBatch) -> jax.Array:
    return _pair_margins(
      model.model, *pairs.placed(batch, model.mesh)[:3], mesh=model.mesh
    )

  return pairs.group_means(problem, name, f"margins.{name}", 1, compute)[:, 0]


def backward(
  model: model_lib.Decoder,
  tokens_BT: jax.Array,
  mask_BT: jax.Array,
  scored_BR: jax.Array,
  *,
  hook: str,
  mesh: jax.sharding.Mesh,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Mean-token log-probability of the scored tokens, and its gradient.

  Pure, to be called under `jax.jit`. The gradient is by an addend at the hook,
  which is 0, so that the model's dtype rounds it and nothing else.

  Returns:
    logp_B f32 in nats per token, grad_BTD f32 (each sequence's own), and the
    hook's activations x_BTD in the model's dtype.
  """
  # A tap on the last stream keeps all blocks running; it costs nothing.
  last = f"blocks.{model.layers - 1}.hook_resid_post"

  def total(add_BTD):
    out = lm.forward(
      model,
      tokens_BT,
      mask_BT,
      taps=(hook, last),
      edits=(lm.Edit(hook, _add, (add_BTD,)),),
      want_logits=False,
      mesh=mesh,
      remat=True,
    )
    logp_B = likelihood.mean_logprob(
      model, out.taps[last], tokens_BT, scored_BR
    )
    return jnp.sum(logp_B), (logp_B, out.taps[hook])

  zero_BTD = jnp.zeros((*tokens_BT.shape, model.config.d_model), jnp.float32)
  (_, (logp_B, x_BTD)), grad_BTD = jax.value_and_grad(total, has_aux=True)(
    zero_BTD
  )
  return logp_B, grad_BTD, x_BTD


def _add(h_BTD: jax.Array, mask_BT: jax.Array, add_BTD: jax.Array) -> jax.Array:
  return h_BTD + add_BTD.astype(h_BTD.dtype)


@functools.partial(jax.jit, static_argnames=("hook", "mesh"))
def _pair_gradients(
  model, tokens_BT, mask_BT, scored_BR, scope_BS, *, hook, mesh
):
  _, grad_BTD, _ = backward(
    model, tokens_BT, mask_BT, scored_BR, hook=hook, mesh=mesh
  )
  grad_BD = jnp.sum(likelihood.picked(grad_BTD, scope_BS), axis=1)
  return on_mesh.everywhere(grad_BD[0::2] - grad_BD[1::2], mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _pair_margins(model, tokens_BT, mask_BT, scored_BR, *, mesh):
  out = lm.forward(model, tokens_BT, mask_BT, want_logits=False, mesh=mesh)
  logp_B = likelihood.mean_logprob(model, out.resid_BTD, tokens_BT, scored_BR)
  return on_mesh.everywhere((logp_B[0::2] - logp_B[1::2])[:, None], mesh)
