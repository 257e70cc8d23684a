# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Generates text with a key-value cache, greedily or by sampling.

Prompts are padded on the left to one length, so that a batch is one compiled
program; a sample depends on the seed and the prompt's index, not on the batch.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors
from sae_jax.lm import attention as attention_lib
from sae_jax.lm import batch as batch_lib
from sae_jax.lm import hooks as hooks_lib
from sae_jax.lm import load as load_lib
from sae_jax.lm import model as model_lib
from sae_jax.lm import run as run_lib


def generate(
  lm: load_lib.LanguageModel,
  prompts: Sequence[str] | Sequence[Sequence[int]],
  *,
  max_new_tokens: int,
  temperature: float = 0.0,
  seed: int = 0,
  edits: Sequence[hooks_lib.Edit] = (),
  stop_tokens: Iterable[int] | None = None,
  batch_size: int = 32,
) -> list[str]:
  """Continues every prompt; returns the new text without the stop token.

  See `generate_tokens` for the arguments.
  """
  found = generate_tokens(
    lm,
    prompts,
    max_new_tokens=max_new_tokens,
    temperature=temperature,
    seed=seed,
    edits=edits,
    stop_tokens=stop_tokens,
    batch_size=batch_size,
  )
  return [lm.tokenizer.decode(tokens) for tokens in found]


def generate_tokens(
  lm: load_lib.LanguageModel,
  prompts: Sequence[str] | Sequence[Sequence[int]],
  *,
  max_new_tokens: int,
  temperature: float = 0.0,
  seed: int = 0,
  edits: Sequence[hooks_lib.Edit] = (),
  row_edits: Callable[[np.ndarray], Sequence[hooks_lib.Edit]] | None = None,
  draws: Sequence[int] | None = None,
  stop_tokens: Iterable[int] | None = None,
  batch_size: int = 32,
) -> list[list[int]]:
  """Continues every prompt; returns the new tokens without the stop token.

  Args:
    prompts: strings (the tokenizer adds BOS where the model wants it), or token
      ids as they are, for instance of a chat template.
    max_new_tokens: at most so many per prompt.
    temperature: 0 is greedy (the lower id wins a tie).
    seed: prompt i draws token t from `fold_in(fold_in(key(seed), i), t)`, with
      `draws[i]` in the place of i where they are given.
    edits: changes of the activations, of prompt and new tokens alike.
    row_edits: gives the edits of a batch, which come after `edits`, from the
      indices of its rows' prompts, so that every row may undergo another one.
      A short batch repeats its last prompt's index.
    draws: one per prompt: prompts with the same draw the same random numbers.
    stop_tokens: ids that end a text; None: the model's end-of-sequence ids.
    batch_size: prompts at a time; changes memory and speed only.

  Raises:
    errors.InputError: an empty prompt, wrong numbers or hooks, draws that are
      not one per prompt, or no head.
  """
  if max_new_tokens < 1:
    raise errors.InputError(f"max_new_tokens={max_new_tokens}: give at least 1")
  if not temperature >= 0:
    raise errors.InputError(f"temperature={temperature}: give 0 or more")
  ids = batch_lib.encode(lm, prompts)
  draw_N = np.arange(len(ids)) if draws is None else np.asarray(draws)
  if draw_N.shape != (len(ids),):
    raise errors.InputError(
      f"{len(draw_N)} draws for {len(ids)} prompts; give one for each"
    )
  if not ids:
    return []
  if stop_tokens is None:
    stop_tokens = default_stop_tokens(lm)
  stop_X = np.asarray(sorted(set(stop_tokens)), np.int32)
  longest = max(len(prompt) for prompt in ids)
  batch_lib.check_length(lm, longest + max_new_tokens)
  batch_size = min(batch_size, len(ids))
  results: list[list[int]] = []
  for first in range(0, len(ids), batch_size):
    tokens_BT, mask_BT = batch_lib.pad(
      ids[first : first + batch_size], batch_size, longest, left=True
    )
    tokens_BT, mask_BT = batch_lib.check_tokens(lm, tokens_BT, mask_BT)
    row_B = np.minimum(np.arange(first, first + batch_size), len(ids) - 1)
    of_rows = () if row_edits is None else row_edits(row_B)
    new_BN = _generate(
      lm.model,
      tokens_BT,
      mask_BT,
      (*edits, *of_rows),
      stop_X,
      None if temperature == 0 else jnp.float32(temperature),
      jax.random.key(seed),
      jnp.asarray(draw_N[row_B], jnp.int32),
      count=max_new_tokens,
      mesh=lm.mesh,
    )
    for row in np.asarray(new_BN)[: len(ids) - first]:
      stops = np.flatnonzero(np.isin(row, stop_X))
      results.append(row[: stops[0] if stops.size else None].tolist())
  return results


def default_stop_tokens(lm: load_lib.LanguageModel) -> set[int]:
  """The config's end-of-sequence ids; without any, the tokenizer's."""
  if lm.config.eos_ids:
    return set(lm.config.eos_ids)
  eos = lm.tokenizer.eos_id
  return set() if eos is None else {eos}


@functools.partial(jax.jit, static_argnames=("count", "mesh"))
def _generate(
  model: model_lib.Decoder,
  tokens_BT: jax.Array,
  mask_BT: jax.Array,
  edits: tuple[hooks_lib.Edit, ...],
  stop_X: jax.Array,
  temperature: jax.Array | None,
  key: jax.Array,
  draw_B: jax.Array,
  *,
  count: int,
  mesh: jax.sharding.Mesh,
) -> jax.Array:
  """New tokens [B, count]; what follows a stop token means nothing."""
  b, t = tokens_BT.shape
  mask_BS = jnp.pad(mask_BT, ((0, 0), (0, count)), constant_values=True)
  key_B = jax.vmap(lambda draw: jax.random.fold_in(key, draw))(draw_B)

  def advance(tokens, cache, start, step):
    out = run_lib.forward(
      model,
      tokens,
      mask_BS,
      edits=edits,
      want_logits=False,
      cache=cache,
      start=start,
      mesh=mesh,
    )
    logits_BV = model.unembed(out.resid_BTD[:, -1:])[:, 0]
    return _pick(logits_BV, temperature, key_B, step), out.cache

  def more(carry):
    step, _, done_B, _, _ = carry
    return (step < count) & ~jnp.all(done_B)

  def body(carry):
    step, token_B, done_B, new_BN, cache = carry
    token_B, cache = advance(token_B[:, None], cache, t + step - 1, step)
    new_BN = jax.lax.dynamic_update_index_in_dim(new_BN, token_B, step, 1)
    done_B |= jnp.isin(token_B, stop_X)
    return step + 1, token_B, done_B, new_BN, cache

  cache = _empty_cache(model, b, t + count, mesh)
  token_B, cache = advance(tokens_BT, cache, 0, 0)
  new_BN = jnp.zeros((b, count), jnp.int32).at[:, 0].set(token_B)
  # Rows that only fill the batch up are done before they start.
  done_B = jnp.isin(token_B, stop_X) | ~jnp.any(mask_BT, axis=1)
  carry = (jnp.int32(1), token_B, done_B, new_BN, cache)
  new_BN = jax.lax.while_loop(more, body, carry)[3]
  # Replicated, so that every process can read it.
  everywhere = jax.NamedSharding(mesh, jax.P())
  return jax.lax.with_sharding_constraint(new_BN, everywhere)


def _pick(logits_BV, temperature, key_B, step) -> jax.Array:
  """The next tokens; without a temperature the likeliest."""
  if temperature is None:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)

  def sample(key, logits_V):
    key = jax.random.fold_in(key, step)
    return jax.random.categorical(key, logits_V / temperature)

  return jax.vmap(sample)(key_B, logits_BV).astype(jnp.int32)


def _empty_cache(
  model: model_lib.Decoder, batch: int, slots: int, mesh: jax.sharding.Mesh
) -> attention_lib.KvCache:
  c = model.config
  heads = "latent" if c.num_kv_heads % mesh.shape["latent"] == 0 else None
  batch_axes = batch_lib.spec(mesh, batch)
  sharding = jax.NamedSharding(mesh, jax.P(None, batch_axes, None, heads))
  shape = (c.num_layers, batch, slots, c.num_kv_heads, c.head_dim)
  zeros = jax.lax.with_sharding_constraint(
    jnp.zeros(shape, model.dtype), sharding
  )
  return attention_lib.KvCache(zeros, zeros)
