# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches of sequences: from prompts to checked arrays on the mesh.

Sequences are split over the axes `(sae, data)` where their number divides.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors
from sae_jax.lm import load as load_lib

AXES = ("sae", "data")

# Prompt lengths are rounded up to this, to compile for fewer of them.
_LENGTH_STEP = 32


def spec(mesh: jax.sharding.Mesh, batch: int) -> tuple[str, ...] | None:
  """The mesh axes for `batch` sequences; None, replicated, if none fit."""
  size = mesh.shape["sae"] * mesh.shape["data"]
  return AXES if batch % size == 0 else None


def pin(x, mesh: jax.sharding.Mesh | None, axis: int = 0):
  if mesh is None:
    return x
  axes: list = [None] * x.ndim
  axes[axis] = spec(mesh, x.shape[axis])
  sharding = jax.NamedSharding(mesh, jax.P(*axes))
  return jax.lax.with_sharding_constraint(x, sharding)


def place(x, mesh: jax.sharding.Mesh) -> jax.Array:
  """Puts a host array with a leading batch axis on the mesh.

  Every process gives the whole batch and copies only its devices' part.
  """
  sharding = jax.NamedSharding(mesh, jax.P(spec(mesh, x.shape[0])))
  if isinstance(x, jax.Array):
    return jax.device_put(x, sharding)
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])


def check_tokens(lm: load_lib.LanguageModel, tokens_BT, mask_BT):
  """The arguments as arrays on the mesh; a missing mask is all ones.

  Raises:
    errors.InputError: wrong rank, dtype or shape, too long for gpt2's position
      table, or (of host arrays) an id outside the vocabulary.
  """
  if not isinstance(tokens_BT, jax.Array):
    tokens_BT = np.asarray(tokens_BT)
    if tokens_BT.size and np.issubdtype(tokens_BT.dtype, np.integer):
      low, high = tokens_BT.min(), tokens_BT.max()
      if low < 0 or high >= lm.config.vocab_size:
        raise errors.InputError(
          f"token ids from {low} to {high}: {lm.source} has ids 0 to"
          f" {lm.config.vocab_size - 1}; use its own tokenizer"
        )
  if tokens_BT.ndim != 2 or not jnp.issubdtype(tokens_BT.dtype, jnp.integer):
    raise errors.InputError(
      f"tokens of shape {tokens_BT.shape} and dtype {tokens_BT.dtype}: give"
      " integers [sequences, positions]"
    )
  if mask_BT is None:
    mask_BT = np.ones(tokens_BT.shape, bool)
  if mask_BT.shape != tokens_BT.shape:
    raise errors.InputError(
      f"a mask of shape {mask_BT.shape} for tokens of shape {tokens_BT.shape}"
    )
  check_length(lm, tokens_BT.shape[1])
  return (
    place(tokens_BT.astype(np.int32), lm.mesh),
    place(mask_BT.astype(bool), lm.mesh),
  )


def check_length(lm: load_lib.LanguageModel, length: int):
  limit = lm.config.learned_positions
  if limit and length > limit:
    raise errors.InputError(
      f"{length} positions: {lm.source} has a table of {limit}; give shorter"
      " sequences"
    )


def encode(
  lm: load_lib.LanguageModel, prompts: Sequence[str] | Sequence[Sequence[int]]
) -> list[list[int]]:
  """Token ids of every prompt.

  Raises:
    errors.InputError: a prompt without tokens, or one string for a list.
  """
  if isinstance(prompts, str):
    raise errors.InputError("prompts is one string; give a list of prompts")
  ids = [
    lm.tokenizer.encode(prompt)
    if isinstance(prompt, str)
    else [int(token) for token in prompt]
    for prompt in prompts
  ]
  for i, prompt in enumerate(ids):
    if not prompt:
      raise errors.InputError(
        f"prompt {i} has no tokens; start it with text or the BOS token"
      )
  return ids


def pad(
  ids: Sequence[Sequence[int]], rows: int, longest: int, *, left: bool
) -> tuple[np.ndarray, np.ndarray]:
  """tokens_BT and mask_BT of `rows` sequences, rounded up in length.

  Missing rows have an all-false mask.
  """
  length = -(-longest // _LENGTH_STEP) * _LENGTH_STEP
  tokens_BT = np.zeros((rows, length), np.int32)
  mask_BT = np.zeros((rows, length), bool)
  for row, sequence in enumerate(ids):
    at = slice(length - len(sequence), None) if left else slice(len(sequence))
    tokens_BT[row, at] = sequence
    mask_BT[row, at] = True
  return tokens_BT, mask_BT
