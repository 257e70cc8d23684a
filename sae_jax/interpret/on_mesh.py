# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One finished dictionary on a mesh: encode and decode for measuring.

Rows are split over `sae` and `data`, latents over `latent`. Between shards
travel candidate values of the top-k and reconstructions, nothing wider.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax import errors, ops, sae
from sae_jax.ops.topk_encode import sharded

ROWS = ("sae", "data")  # there is one dictionary: its axis takes rows too


def lanes(mesh: jax.sharding.Mesh) -> int:
  """What a number of rows has to be a multiple of."""
  return mesh.shape["sae"] * mesh.shape["data"]


def specs(dictionary: sae.Sae) -> sae.Sae:
  """The dictionary with partition specs for arrays."""
  return dataclasses.replace(
    dictionary, params=sae.partition_specs(dictionary.params)
  )


def place(dictionary: sae.Sae, mesh: jax.sharding.Mesh) -> sae.Sae:
  """Puts the dictionary on the mesh.

  Raises:
    errors.InputError: its latents cannot be split evenly.
  """
  shards = mesh.shape["latent"]
  if dictionary.latents % shards:
    raise errors.InputError(
      f"this SAE has {dictionary.latents} latents, which do not split over"
      f" mesh.latent={shards} devices; use a mesh.latent that divides them"
    )
  return jax.device_put(
    dictionary,
    jax.tree.map(lambda spec: jax.NamedSharding(mesh, spec), specs(dictionary)),
  )


def active(shard: sae.Sae, x_BD: jax.Array) -> tuple[jax.Array, jax.Array]:
  """This shard's share of the active latents, inside `shard_map`.

  Returns:
    values_BK, 0 where the latent is not active (of TopK: not among the k best
    of all shards), and indices_BK, counted from this shard's first latent.
    Rows with more than k active latents on a shard are NaN.
  """
  k = min(shard.k, shard.latents)
  values_BK, indices_BK = sae.encode(dataclasses.replace(shard, k=k), x_BD)
  if shard.activation != "topk":
    return values_BK, indices_BK
  # All that ReLU made equal is zero, whoever wins it.
  count_B = sharded.winners(values_BK, shard.k, "latent")
  kept_BK = jnp.arange(k)[None, :] < count_B[:, None]
  return jnp.where(kept_BK, values_BK, 0), indices_BK


def decode(
  shard: sae.Sae,
  values_BK: jax.Array,
  indices_BK: jax.Array,
  x_BD: jax.Array,
) -> jax.Array:
  """The reconstruction of all shards, inside `shard_map`."""
  part_BE = ops.sparse_decode(values_BK, indices_BK, shard.params.w_dec_FD)
  return sae.add_rest(shard, lax.psum(part_BE, "latent"), x_BD)


@functools.cache
def encoder(mesh: jax.sharding.Mesh):
  """Compiled `(placed dictionary, x_BD) -> values, indices` on every device.

  Both are [B, shards · K] with latents counted from 0; slots of latents that
  are not active hold the value 0.
  """

  @functools.partial(jax.jit, out_shardings=jax.NamedSharding(mesh, jax.P()))
  def encode(dictionary, x_BD):
    def local(shard, x_BD):
      values_BK, indices_BK = active(shard, x_BD)
      first = lax.axis_index("latent") * shard.latents
      return values_BK, indices_BK + first

    return _shard_map(
      local, mesh, dictionary, jax.P(ROWS, "latent"), jax.P(ROWS, "latent")
    )(dictionary, x_BD)

  return encode


def everywhere(x: jax.Array, mesh: jax.sharding.Mesh) -> jax.Array:
  """Replicated, so that every process can read it; for jitted functions."""
  return lax.with_sharding_constraint(x, jax.NamedSharding(mesh, jax.P()))


def reconstruct(
  dictionary: sae.Sae, x_BD: jax.Array, mesh: jax.sharding.Mesh
) -> jax.Array:
  """decode(encode(x)) of a placed dictionary; composes into jitted programs."""

  def local(shard, x_BD):
    return decode(shard, *active(shard, x_BD), x_BD)

  return _shard_map(local, mesh, dictionary, jax.P(ROWS, None))(
    dictionary, x_BD
  )


def _shard_map(local, mesh, dictionary, *out_specs):
  return jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(specs(dictionary), jax.P(ROWS, None)),
    out_specs=out_specs if len(out_specs) > 1 else out_specs[0],
    check_vma=False,
  )
