# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The dictionary itself: its arrays, and what it does to activations.

`Params` are what training changes. `Sae` is a finished dictionary: it takes raw
(unscaled) activations, and its decoder rows have norm 1.
"""

import collections.abc
import dataclasses
import functools
import json
import types
from typing import Any

import jax
import jax.numpy as jnp

from sae_jax import errors, ops


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
  """Encoder and decoder, both row-major by latent."""

  w_enc_FD: jax.Array
  w_dec_FD: jax.Array
  b_enc_F: jax.Array
  b_dec_D: jax.Array

  @property
  def latents(self) -> int:
    return self.w_enc_FD.shape[0]

  @property
  def d_model(self) -> int:
    return self.w_enc_FD.shape[1]


_NOTHING: collections.abc.Mapping[str, Any] = types.MappingProxyType({})


class Metadata(collections.abc.Mapping):
  """Read-only, hashable JSON values: where a dictionary is from."""

  def __init__(self, values: collections.abc.Mapping[str, Any] = _NOTHING):
    self._json = json.dumps(dict(values), sort_keys=True)
    self._values = json.loads(self._json)

  def __getitem__(self, key):
    return self._values[key]

  def __iter__(self):
    return iter(self._values)

  def __len__(self):
    return len(self._values)

  def __hash__(self):
    return hash(self._json)

  def __eq__(self, other):
    return isinstance(other, Metadata) and self._json == other._json

  def __repr__(self):
    return f"Metadata({self._json})"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sae:
  """A trained TopK dictionary for raw activations.

  `metadata` says where it is from (model, hook, context length, …) and uses
  SAELens's key names.
  """

  params: Params
  k: int = dataclasses.field(metadata={"static": True})
  activation: str = dataclasses.field(default="topk", metadata={"static": True})
  metadata: Metadata = dataclasses.field(
    default=Metadata(), metadata={"static": True}
  )

  @property
  def latents(self) -> int:
    return self.params.latents

  @property
  def d_model(self) -> int:
    return self.params.d_model


def make_sae(
  params: Params,
  k: int,
  metadata: collections.abc.Mapping[str, Any] | None = None,
) -> Sae:
  """A TopK dictionary from arrays that already take raw activations."""
  return Sae(params=params, k=k, metadata=Metadata(metadata or {}))


def fold_scale(params: Params, scale: jax.Array) -> Params:
  """Parameters for raw x from those trained on `scale · x`.

  With `pre = w_enc (s x − b_dec) + b_enc = s (w_enc (x − b_dec/s) + b_enc/s)`,
  both biases are divided by s and the matrices stay, decoder norms included.
  Pre-activations are divided by s > 0, so the K largest are the same ones.
  """
  return dataclasses.replace(
    params, b_enc_F=params.b_enc_F / scale, b_dec_D=params.b_dec_D / scale
  )


def _check(sae: Sae, x_BD: jax.Array) -> None:
  if x_BD.ndim != 2 or x_BD.shape[1] != sae.d_model:
    raise errors.InputError(
      f"activations of shape {x_BD.shape}: this dictionary takes"
      f" [B, {sae.d_model}]; flatten leading axes first"
    )


@functools.partial(jax.jit, static_argnames=("implementation",))
def encode(
  sae: Sae, x_BD: jax.Array, *, implementation: str | None = None
) -> tuple[jax.Array, jax.Array]:
  """The k active latents of every row: `ReLU(TopK(w_enc (x − b_dec) + b_enc))`.

  Args:
    sae: the dictionary.
    x_BD: raw activations, any float dtype; computed in float32.
    implementation: of `ops.topk_encode`.

  Returns:
    values_BK float32 >= 0, descending, and indices_BK int32. Where fewer than
    k pre-activations are positive, the values that are left are 0.

  Raises:
    errors.InputError: `x_BD` has another shape.
  """
  _check(sae, x_BD)
  p = sae.params
  centred_BD = x_BD.astype(jnp.float32) - p.b_dec_D[None, :]
  values_BK, indices_BK = ops.topk_encode(
    centred_BD, p.w_enc_FD, p.b_enc_F, sae.k, implementation=implementation
  )
  return jax.nn.relu(values_BK), indices_BK


def to_dense(
  values_BK: jax.Array, indices_BK: jax.Array, latents: int
) -> jax.Array:
  """Sparse activations as [B, F]."""
  batch = values_BK.shape[0]
  row_B1 = jnp.arange(batch)[:, None]
  zeros_BF = jnp.zeros((batch, latents), values_BK.dtype)
  return zeros_BF.at[row_B1, indices_BK].set(values_BK)


@functools.partial(jax.jit, static_argnames=("implementation",))
def encode_dense(
  sae: Sae, x_BD: jax.Array, *, implementation: str | None = None
) -> jax.Array:
  """Like `encode`, as dense [B, F] float32 with at most k non-zeros."""
  values_BK, indices_BK = encode(sae, x_BD, implementation=implementation)
  return to_dense(values_BK, indices_BK, sae.latents)


@functools.partial(jax.jit, static_argnames=("implementation",))
def decode(
  sae: Sae,
  values_BK: jax.Array,
  indices_BK: jax.Array,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Reconstructs raw activations, `Σ_k values · w_dec[indices] + b_dec`.

  Takes any number of latents per row; a repeated one counts each time.
  """
  p = sae.params
  out_BD = ops.sparse_decode(
    values_BK, indices_BK, p.w_dec_FD, implementation=implementation
  )
  return out_BD + p.b_dec_D[None, :]
