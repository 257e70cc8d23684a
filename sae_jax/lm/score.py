# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities that a model gives to tokens that are there already."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors
from sae_jax.lm import batch as batch_lib
from sae_jax.lm import hooks as hooks_lib
from sae_jax.lm import load as load_lib
from sae_jax.lm import model as model_lib
from sae_jax.lm import run as run_lib

# Logits of so many positions at a time: 128 of 8 sequences and 128 K words are
# 0.5 GiB in f32.
_POSITIONS_AT_ONCE = 128


def token_logprobs(
  model: model_lib.Decoder,
  tokens_BT: jax.Array,
  mask_BT: jax.Array,
  *,
  edits: Sequence[hooks_lib.Edit] = (),
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """log p(token t | tokens before t), f32 [B, T]; pure, to be jitted.

  0 where there is nothing to score: padding and every sequence's first token.
  The logits of only 128 positions are in memory at once.
  """
  out = run_lib.forward(
    model, tokens_BT, mask_BT, edits=edits, want_logits=False, mesh=mesh
  )
  b, t, d = out.resid_BTD.shape
  step = min(_POSITIONS_AT_ONCE, t)
  short = -t % step
  next_BT = jnp.pad(jnp.roll(tokens_BT, -1, axis=1), ((0, 0), (0, short)))
  h_BTD = jnp.pad(out.resid_BTD, ((0, 0), (0, short), (0, 0)))

  def score(part):
    h_BtD, next_Bt = part
    logits_BtV = model.unembed(h_BtD)
    chosen_Bt = jnp.take_along_axis(logits_BtV, next_Bt[..., None], axis=-1)
    return chosen_Bt[..., 0] - jax.nn.logsumexp(logits_BtV, axis=-1)

  parts = (
    jnp.moveaxis(h_BTD.reshape(b, -1, step, d), 1, 0),
    jnp.moveaxis(next_BT.reshape(b, -1, step), 1, 0),
  )
  logp_BT = jnp.moveaxis(jax.lax.map(score, parts), 0, 1).reshape(b, -1)[:, :t]
  logp_BT = jnp.roll(logp_BT, 1, axis=1)
  scored_BT = (mask_BT & jnp.roll(mask_BT, 1, axis=1)).at[:, 0].set(False)
  return jnp.where(scored_BT, logp_BT, 0.0)


def completion_logprobs(
  lm: load_lib.LanguageModel,
  prompts: Sequence[str] | Sequence[Sequence[int]],
  completions: Sequence[str] | Sequence[Sequence[int]],
  *,
  edits: Sequence[hooks_lib.Edit] = (),
  batch_size: int = 32,
) -> list[np.ndarray]:
  """Log-probability of every token of each completion after its prompt.

  Prompt and completion are tokenised apart and joined, so that the same
  completion has the same tokens after every prompt.

  Args:
    prompts: strings or token ids; none may be empty.
    completions: one for each prompt; strings get no BOS.
    edits: changes of the activations, of prompt and completion alike.
    batch_size: pairs at a time; changes memory and speed only.

  Returns:
    float32 arrays in nats, as long as the completions are in tokens.

  Raises:
    errors.InputError: lists of different lengths, an empty prompt, wrong hooks,
      or no head loaded.
  """
  if isinstance(completions, str) or len(prompts) != len(completions):
    raise errors.InputError(
      f"{len(prompts)} prompts and {len(completions)} completions: give two"
      " lists of the same length"
    )
  before = batch_lib.encode(lm, prompts)
  after = [
    lm.tokenizer.encode(text, add_bos=False)
    if isinstance(text, str)
    else [int(token) for token in text]
    for text in completions
  ]
  whole = [p + c for p, c in zip(before, after, strict=True)]
  if not whole:
    return []
  longest = max(len(tokens) for tokens in whole)
  batch_lib.check_length(lm, longest)
  batch_size = min(batch_size, len(whole))
  results = []
  for first in range(0, len(whole), batch_size):
    rows = slice(first, first + batch_size)
    tokens_BT, mask_BT = batch_lib.pad(
      whole[rows], batch_size, longest, left=False
    )
    tokens_BT, mask_BT = batch_lib.check_tokens(lm, tokens_BT, mask_BT)
    logp_BT = _token_logprobs(
      lm.model, tokens_BT, mask_BT, tuple(edits), mesh=lm.mesh
    )
    logp_BT = np.asarray(logp_BT)
    for row, (p, tokens) in enumerate(
      zip(before[rows], whole[rows], strict=True)
    ):
      results.append(logp_BT[row, len(p) : len(tokens)].copy())
  return results


@functools.partial(jax.jit, static_argnames=("mesh",))
def _token_logprobs(model, tokens_BT, mask_BT, edits, *, mesh):
  logp_BT = token_logprobs(model, tokens_BT, mask_BT, edits=edits, mesh=mesh)
  # Replicated, so that every process can read it.
  everywhere = jax.NamedSharding(mesh, jax.P())
  return jax.lax.with_sharding_constraint(logp_BT, everywhere)
