# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How long the residuals of the unsteered model are: the unit of strength."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, lm
from sae_jax.interpret import on_mesh
from sae_jax.lm import batch as batch_lib


def median_norm(
  model: lm.LanguageModel,
  sequences: Sequence[Sequence[int]],
  hook: str,
  *,
  batch_size: int = 16,
) -> float:
  """Median L2 norm of the residuals at `hook`, over tokens of all sequences.

  The first token of every sequence and special tokens are left out: they are
  attention sinks of many times the usual norm. Strengths in this unit mean the
  same at every layer (OpenAI's follow-up to arXiv 2506.19823 steers at 0.4).

  Args:
    model: loaded at least to the hook.
    sequences: token ids, such as prompts with their responses.
    hook: where.
    batch_size: sequences at a time; changes memory and speed only.

  Raises:
    errors.InputError: no token is left, a wrong hook, or residuals that are not
      finite.
  """
  hook = lm.parse_hook(hook, model.config.num_layers).canonical
  ids = batch_lib.encode(model, sequences)
  special_X = np.asarray(sorted(model.tokenizer.special_ids), np.int32)
  lanes = on_mesh.lanes(model.mesh)
  batch_size = -(-min(batch_size, len(ids)) // lanes) * lanes
  norms = [np.zeros(0, np.float32)]
  # Alike lengths together, as each batch is padded to its longest.
  ids.sort(key=len)
  for first in range(0, len(ids), batch_size):
    part = ids[first : first + batch_size]
    tokens_BT, mask_BT = batch_lib.pad(
      part, batch_size, len(part[-1]), left=False
    )
    kept_BT = mask_BT & ~np.isin(tokens_BT, special_X)
    kept_BT[:, 0] = False
    norm_BT = _norms(
      model.model,
      *batch_lib.check_tokens(model, tokens_BT, mask_BT),
      hook=hook,
      mesh=model.mesh,
    )
    norms.append(np.asarray(norm_BT)[kept_BT])
  norm_N = np.concatenate(norms)
  if not norm_N.size:
    raise errors.InputError(
      f"{len(ids)} sequences hold no token but first and special ones; give"
      " longer ones"
    )
  if not np.isfinite(norm_N).all():
    raise errors.InputError(
      f"{model.source}: {hook} is not finite; run it with dtype=float32, or"
      " check its weights"
    )
  return float(np.median(norm_N))


@functools.partial(jax.jit, static_argnames=("hook", "mesh"))
def _norms(model, tokens_BT, mask_BT, *, hook, mesh):
  out = lm.forward(
    model, tokens_BT, mask_BT, taps=(hook,), want_logits=False, mesh=mesh
  )
  h_BTD = out.taps[hook].astype(jnp.float32)
  return on_mesh.everywhere(jnp.linalg.norm(h_BTD, axis=-1), mesh)
