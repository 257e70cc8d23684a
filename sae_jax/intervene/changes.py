# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What interventions do to a batch of streams: functions for `lm.Edit`.

Every sequence has its own vectors, in arrays that begin with B. Results are
f32, to be rounded once; tokens out of scope are as they were.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax import sae
from sae_jax.interpret import on_mesh


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scope:
  """Which tokens an intervention changes."""

  of_prompt: jax.Array  # bool []
  of_response: jax.Array  # bool []
  # The position of each sequence's first response token. None: the model is
  # generating; several tokens at once are the prompt, single ones are new.
  prompt_end_B: jax.Array | None

  def of(self, mask_BT: jax.Array) -> jax.Array:
    """bool [B, T]; `mask_BT` marks what is not padding."""
    t = mask_BT.shape[1]
    if self.prompt_end_B is None:
      return mask_BT & (self.of_prompt if t > 1 else self.of_response)
    is_prompt_BT = jnp.arange(t)[None, :] < self.prompt_end_B[:, None]
    scope_BT = jnp.where(is_prompt_BT, self.of_prompt, self.of_response)
    return mask_BT & scope_BT


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Placed:
  """A dictionary and the mesh that it lies on."""

  dictionary: sae.Sae
  mesh: jax.sharding.Mesh = dataclasses.field(metadata={"static": True})


def add(
  h_BTD: jax.Array, mask_BT: jax.Array, scope: Scope, v_BD: jax.Array
) -> jax.Array:
  """h + v."""
  y_BTD = h_BTD.astype(jnp.float32) + v_BD[:, None, :]
  return jnp.where(scope.of(mask_BT)[..., None], y_BTD, h_BTD)


def project_out(
  h_BTD: jax.Array,
  mask_BT: jax.Array,
  scope: Scope,
  q_BRD: jax.Array,
  fraction_B: jax.Array,
) -> jax.Array:
  """h − f Σ_r (h · q_r) q_r, with orthonormal q or zeros."""
  x_BTD = h_BTD.astype(jnp.float32)
  along_BTR = _einsum("btd,brd->btr", x_BTD, q_BRD)
  part_BTD = _einsum("btr,brd->btd", along_BTR, q_BRD)
  y_BTD = x_BTD - fraction_B[:, None, None] * part_BTD
  return jnp.where(scope.of(mask_BT)[..., None], y_BTD, h_BTD)


def clamp(
  h_BTD: jax.Array,
  mask_BT: jax.Array,
  scope: Scope,
  latents_BL: jax.Array,
  values_BL: jax.Array,
  d_BLD: jax.Array,
  placed: Placed,
) -> jax.Array:
  """h + Σ_l (c_l − a_l) d_l; a latent −1 is active nowhere, its d is 0."""
  x_BTD = h_BTD.astype(jnp.float32)
  active_BTL = _active(placed, x_BTD, latents_BL)
  missing_BTL = values_BL[:, None, :] - active_BTL
  y_BTD = x_BTD + _einsum("btl,bld->btd", missing_BTL, d_BLD)
  return jnp.where(scope.of(mask_BT)[..., None], y_BTD, h_BTD)


def _einsum(equation: str, x, y):
  return jnp.einsum(equation, x, y, precision=lax.Precision.HIGHEST)


def _active(placed: Placed, x_BTD, latents_BL) -> jax.Array:
  """Activations of each sequence's latents, [B, T, L]."""
  b, t, d = x_BTD.shape
  # Rows of a batch that does not divide over the devices are filled up.
  short = -b % on_mesh.lanes(placed.mesh)
  x_BTD = jnp.pad(x_BTD, ((0, short), (0, 0), (0, 0)))
  latents_BL = jnp.pad(latents_BL, ((0, short), (0, 0)), constant_values=-1)
  rows: Any = jax.P(on_mesh.ROWS)

  def local(shard: sae.Sae, x_BTD, latents_BL):
    values_RK, indices_RK = on_mesh.active(shard, x_BTD.reshape(-1, d))
    first = lax.axis_index("latent") * shard.latents
    values_BT1K = values_RK.reshape(-1, t, 1, values_RK.shape[-1])
    indices_BT1K = (first + indices_RK).reshape(values_BT1K.shape)
    is_BTLK = indices_BT1K == latents_BL[:, None, :, None]
    return lax.psum(jnp.sum(is_BTLK * values_BT1K, axis=-1), "latent")

  found_BTL = jax.shard_map(
    local,
    mesh=placed.mesh,
    in_specs=(on_mesh.specs(placed.dictionary), rows, rows),
    out_specs=rows,
    check_vma=False,
  )(placed.dictionary, x_BTD, latents_BL)
  return found_BTL[:b]
