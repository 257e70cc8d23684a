# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What latents and directions say about a model on fixed sequences.

Sequences go through the model up to the hook and no further; positions that
nobody asked for are never encoded, and nothing is written.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, lm, sae
from sae_jax.interpret import on_mesh
from sae_jax.lm import batch as batch_lib

Span = tuple[Sequence[int], int, int]  # tokens, and the positions [a, b)


@dataclasses.dataclass(frozen=True)
class Reading:
  """Means over each of P sequences' own positions."""

  mean_PD: np.ndarray  # float64, the residual
  latents_PL: np.ndarray  # float64, activations; 0 where one does not fire
  projections_PV: np.ndarray  # float64, on the directions at unit norm
  norm_P: np.ndarray  # float64, the L2 norm of the residual
  rows_P: np.ndarray  # int64, how many positions


def read(
  model: lm.LanguageModel,
  hook: str,
  sequences: Sequence[Span],
  *,
  dictionary: sae.Sae | None = None,
  latents: Sequence[int] = (),
  directions_VD: np.ndarray | None = None,
  batch_size: int = 16,
) -> Reading:
  """Reads latents and directions at `hook` of every sequence.

  Args:
    model: loaded at least to the hook; its mesh is the one that is used.
    hook: where the dictionary and the directions live.
    sequences: token ids and the positions [a, b) that count, at least one
      each; see `judge.prompts.spans`.
    dictionary: needed for latents; placed on the model's mesh unless it is
      there (`on_mesh.place`).
    latents: their numbers; a latent counts where it is among the k active
      ones. Residuals are rounded to bfloat16 before they are encoded, as a
      store's are, so that means agree with those of a diff.
    directions_VD: of any norm but 0.
    batch_size: sequences per forward pass, rounded up to the mesh; changes
      memory and speed.

  Raises:
    errors.InputError: nothing to read, a span outside its sequence, a latent or
      direction that is not there, or residuals that are not finite.
  """
  hook = lm.parse_hook(hook, model.config.num_layers).canonical
  check(sequences)
  unit_VD = _units(directions_VD, model.config.d_model)
  slot_F = None
  if len(latents):
    slot_F = _slots(dictionary, latents, model.config.d_model)
    assert dictionary is not None
    dictionary = on_mesh.place(dictionary, model.mesh)
  lanes = on_mesh.lanes(model.mesh)
  batch_size = -(-min(batch_size, len(sequences)) // lanes) * lanes
  count = len(sequences)
  mean_PD = np.zeros((count, model.config.d_model))
  latents_PL = np.zeros((count, len(latents)))
  norm_P = np.zeros(count)
  # Alike lengths together, as each batch is padded to its longest.
  order = sorted(range(count), key=lambda i: len(sequences[i][0]))
  for first in range(0, count, batch_size):
    part = order[first : first + batch_size]
    at_BR = _positions([sequences[i] for i in part], batch_size)
    x_BRD = _residuals(model, hook, [sequences[i] for i in part], at_BR)
    mean_BD, norm_B = _means(x_BRD, at_BR, mesh=model.mesh)
    mean_PD[part] = np.asarray(mean_BD)[: len(part)]
    norm_P[part] = np.asarray(norm_B)[: len(part)]
    if slot_F is not None:
      latents_PL[part] = _latents(
        dictionary, x_BRD, at_BR, slot_F, len(latents), model.mesh
      )[: len(part)]
  if not np.isfinite(norm_P).all():
    bad = int(np.flatnonzero(~np.isfinite(norm_P))[0])
    raise errors.InputError(
      f"{model.source}: {hook} is not finite on sequence {bad}; run it with"
      " dtype=float32, or check its weights"
    )
  rows = np.array([b - a for _, a, b in sequences], np.int64)
  return Reading(mean_PD, latents_PL, mean_PD @ unit_VD.T, norm_P, rows)


def check(sequences: Sequence[Span]) -> None:
  """Raises errors.InputError where there is nothing to read."""
  if not sequences:
    raise errors.InputError("there are no sequences to read; give at least one")
  for i, (tokens, start, stop) in enumerate(sequences):
    if not 0 <= start < stop <= len(tokens):
      raise errors.InputError(
        f"sequence {i}: positions {start} to {stop} of {len(tokens)} tokens"
        " hold nothing to read; use a longer prompt or another scope"
      )


def _units(directions_VD: np.ndarray | None, d_model: int) -> np.ndarray:
  """The directions at unit norm, float64 [V, D]."""
  if directions_VD is None:
    return np.zeros((0, d_model))
  directions_VD = np.asarray(directions_VD, np.float64)
  if directions_VD.ndim != 2 or directions_VD.shape[1] != d_model:
    raise errors.InputError(
      f"directions of shape {directions_VD.shape}: this model takes"
      f" [directions, {d_model}]"
    )
  norm_V1 = np.linalg.norm(directions_VD, axis=1, keepdims=True)
  if not (np.isfinite(norm_V1) & (norm_V1 > 0)).all():
    raise errors.InputError(
      f"directions of norms {norm_V1[:, 0].tolist()}: every one must be finite"
      " and longer than 0"
    )
  return directions_VD / norm_V1


def _slots(
  dictionary: sae.Sae | None, latents: Sequence[int], d_model: int
) -> np.ndarray:
  """Where each latent is among those asked for, int [F]; -1: nowhere."""
  if dictionary is None:
    raise errors.InputError(
      f"latents {list(latents)[:5]} are to be read, but there is no dictionary;"
      " give one"
    )
  if dictionary.d_model != d_model:
    raise errors.InputError(
      f"this SAE is {dictionary.d_model} wide and the model {d_model}; use an"
      " SAE that was trained on this model's activations"
    )
  chosen = np.asarray(latents, np.int64)
  wrong = (chosen < 0) | (chosen >= dictionary.latents)
  if wrong.any() or len(np.unique(chosen)) < len(chosen):
    what = f"latent {chosen[wrong][0]}" if wrong.any() else "a latent twice"
    raise errors.InputError(
      f"{what}: give different latents of 0 to {dictionary.latents - 1}"
    )
  slot_F = np.full(dictionary.latents, -1, np.int64)
  slot_F[chosen] = np.arange(len(chosen))
  return slot_F


def _positions(part: Sequence[Span], rows: int) -> np.ndarray:
  """The positions that count, int32 [B, R], -1 behind the last.

  R is a power of two: few shapes to compile.
  """
  longest = max(b - a for _, a, b in part)
  at_BR = np.full((rows, 1 << (longest - 1).bit_length()), -1, np.int32)
  for row, (_, a, b) in enumerate(part):
    at_BR[row, : b - a] = np.arange(a, b)
  return at_BR


def _residuals(
  model: lm.LanguageModel, hook: str, part: Sequence[Span], at_BR: np.ndarray
) -> jax.Array:
  """The residuals at those positions, [B, R, D]; 0 where there is none."""
  # What stands behind the last position that counts changes nothing.
  tokens = [list(tokens[:stop]) for tokens, _, stop in part]
  tokens_BT, mask_BT = batch_lib.pad(
    tokens, len(at_BR), max(map(len, tokens)), left=False
  )
  limit = model.config.learned_positions
  if limit and max(map(len, tokens)) <= limit:  # padding may lie beyond it
    tokens_BT, mask_BT = tokens_BT[:, :limit], mask_BT[:, :limit]
  x_BTD = lm.activations(model, tokens_BT, (hook,), mask_BT)[hook]
  return _picked(x_BTD, at_BR, mesh=model.mesh)


@functools.partial(jax.jit, static_argnames=("mesh",))
def _picked(x_BTD, at_BR, *, mesh):
  x_BRD = jnp.take_along_axis(x_BTD, jnp.maximum(at_BR, 0)[..., None], axis=1)
  x_BRD = jnp.where((at_BR >= 0)[..., None], x_BRD, 0)
  return batch_lib.pin(x_BRD, mesh)


@functools.partial(jax.jit, static_argnames=("mesh",))
def _means(x_BRD, at_BR, *, mesh):
  """Means of the residuals and of their norms, f32, on every process."""
  x_BRD = x_BRD.astype(jnp.float32)
  count_B = jnp.maximum(jnp.sum(at_BR >= 0, axis=1), 1)
  mean_BD = jnp.sum(x_BRD, axis=1) / count_B[:, None]
  norm_B = jnp.sum(jnp.linalg.norm(x_BRD, axis=-1), axis=1) / count_B
  return tuple(on_mesh.everywhere(x, mesh) for x in (mean_BD, norm_B))


def _latents(
  dictionary, x_BRD, at_BR, slot_F, count: int, mesh: jax.sharding.Mesh
) -> np.ndarray:
  """Mean activations of the latents that have a slot, float64 [B, L]."""
  b, r = at_BR.shape
  x_ND = x_BRD.reshape(b * r, -1).astype(jnp.bfloat16)
  values_NK, indices_NK = map(
    np.asarray, on_mesh.encoder(mesh)(dictionary, x_ND)
  )
  slot_NK = slot_F[indices_NK]
  # Rows without a position are encoded too, as zeros, and left out here.
  wanted_NK = (slot_NK >= 0) & (at_BR.reshape(-1, 1) >= 0)
  row_N1 = np.arange(b * r)[:, None] // r
  key_M = (row_N1 * count + slot_NK)[wanted_NK]
  total_BL = np.bincount(
    key_M, values_NK[wanted_NK].astype(np.float64), b * count
  ).reshape(b, count)
  return total_BL / np.maximum(np.sum(at_BR >= 0, axis=1), 1)[:, None]
