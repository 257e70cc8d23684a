# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Encode and decode: what a finished dictionary does to raw activations.

Every kind of dictionary has a score per latent, which is above 0 where the
latent is active (of TopK: if it is among the k largest), and a value that
follows from the score. So all go through one top-k.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax import errors, ops
from sae_jax.ops.topk_encode import reference
from sae_jax.sae import dictionary

_EPS = 1e-5  # added to the deviation that rows are divided by, not back
_ROWS = 256  # whose dense scores are held at once
_PLACES = 16  # places for active latents are given in multiples of this


def encode(
  sae: dictionary.Sae,
  x_BD: jax.Array,
  *,
  implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """The active latents of every row, those with the largest scores first.

  Args:
    sae: the dictionary.
    x_BD: raw activations, any float dtype; computed in float32.
    implementation: of `ops.topk_encode`.

  Returns:
    values_BK float32 >= 0 and indices_BK int32. Of TopK K is `sae.k` and values
    descend; where fewer pre-activations are positive, the values that are left
    are 0. Of other kinds K is what the row with the most active latents needs,
    rounded up. Where that cannot be looked up, inside a compiled program, K is
    `sae.k`, and rows that need more are NaN.

  Raises:
    errors.InputError: `x_BD` has another shape.
  """
  check(sae, x_BD)
  if sae.activation == "topk":
    return active(sae, x_BD, sae.k, implementation=implementation)
  if isinstance(x_BD, jax.core.Tracer):
    places = min(sae.k, sae.latents)
    values_BK, indices_BK = active(
      sae, x_BD, places, implementation=implementation
    )
    lost_B1 = (_count(sae, x_BD) > places)[:, None]
    return jnp.where(lost_B1, jnp.nan, values_BK), indices_BK
  most = int(jnp.max(_count(sae, x_BD), initial=0))
  places = min(-(-max(most, 1) // _PLACES) * _PLACES, sae.latents)
  return active(sae, x_BD, places, implementation=implementation)


@functools.partial(jax.jit, static_argnames=("places", "implementation"))
def active(
  sae: dictionary.Sae,
  x_BD: jax.Array,
  places: int,
  *,
  implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Values and indices [B, places] of the largest scores, 0 where inactive."""
  score_BK, indices_BK = ops.topk_encode(
    centre(sae, x_BD),
    sae.params.w_enc_FD,
    _bias(sae),
    places,
    implementation=implementation,
  )
  return _values(sae, score_BK, indices_BK), indices_BK


def centre(sae: dictionary.Sae, x_BD: jax.Array) -> jax.Array:
  """What the encoder's rows are multiplied with, float32."""
  x_BD = x_BD.astype(jnp.float32)
  if sae.layer_norm:
    mean_B1, deviation_B1 = _moments(x_BD)
    x_BD = (x_BD - mean_B1) / (deviation_B1 + _EPS)
  return x_BD - sae.params.b_dec_D[None, :] if sae.centred else x_BD


def _moments(x_BD):
  # The unbiased deviation, as in openai/sparse_autoencoder, `model.py: LN`.
  mean_B1 = jnp.mean(x_BD, axis=1, keepdims=True)
  return mean_B1, jnp.std(x_BD, axis=1, keepdims=True, ddof=1)


def _bias(sae):
  p = sae.params
  if sae.activation == "jumprelu":
    return p.b_enc_F - p.threshold_F
  return p.b_enc_F


def _values(sae, score, latent):
  """Values of scores of the latents `latent`, of one shape. A NaN stays one."""
  p = sae.params
  if sae.activation == "jumprelu":
    value = score + p.threshold_F[latent]
  elif sae.activation == "gated":
    gain = jnp.exp(p.log_gain_F[latent])
    value = gain * (score - p.b_enc_F[latent]) + p.b_mag_F[latent]
  else:
    value = score
  return jnp.where(score <= 0, 0, jax.nn.relu(value))


def _scores(sae, x_RD):
  return reference.pre_activations(
    centre(sae, x_RD), sae.params.w_enc_FD, _bias(sae)
  )


@jax.jit
def _count(sae, x_BD):
  """How many latents are active in each row, [B] int32."""

  def count(x_D):
    # A NaN is counted: it must reach the values.
    return jnp.sum(~(_scores(sae, x_D[None])[0] <= 0), dtype=jnp.int32)

  return lax.map(count, x_BD, batch_size=_ROWS)


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
  sae: dictionary.Sae, x_BD: jax.Array, *, implementation: str | None = None
) -> jax.Array:
  """Like `encode`, as dense [B, F] float32; exact for any number of active."""
  check(sae, x_BD)
  if sae.activation == "topk":
    values_BK, indices_BK = encode(sae, x_BD, implementation=implementation)
    return to_dense(values_BK, indices_BK, sae.latents)
  latent_1F = jnp.arange(sae.latents)[None, :]
  return _values(sae, _scores(sae, x_BD), latent_1F)


@functools.partial(jax.jit, static_argnames=("implementation",))
def decode(
  sae: dictionary.Sae,
  values_BK: jax.Array,
  indices_BK: jax.Array,
  x_BD: jax.Array | None = None,
  *,
  implementation: str | None = None,
) -> jax.Array:
  """Reconstructs raw activations, `Σ_k values · w_dec[indices] + b_dec`.

  Takes any number of latents per row; a repeated one counts each time.

  Args:
    sae: the dictionary.
    values_BK: float32.
    indices_BK: int32.
    x_BD: what was encoded; needed where the output depends on it directly, by
      `w_skip_DE` or by `layer_norm`.
    implementation: of `ops.sparse_decode`.

  Raises:
    errors.InputError: `x_BD` is needed and not given, or of another shape.
  """
  out_BE = ops.sparse_decode(
    values_BK, indices_BK, sae.params.w_dec_FD, implementation=implementation
  )
  return add_rest(sae, out_BE, x_BD)


def add_rest(
  sae: dictionary.Sae, out_BE: jax.Array, x_BD: jax.Array | None
) -> jax.Array:
  """What `decode` gives, from the sum over latents alone."""
  p = sae.params
  out_BE = out_BE + p.b_dec_D[None, :]
  if p.w_skip_DE is None and not sae.layer_norm:
    return out_BE
  if x_BD is None:
    raise errors.InputError(
      "this dictionary's output depends on its input besides its latents"
      f" ({'layer norm' if sae.layer_norm else 'a skip connection'}): give the"
      " rows that were encoded too, decode(sae, values, indices, x)"
    )
  check(sae, x_BD)
  x_BD = x_BD.astype(jnp.float32)
  if p.w_skip_DE is not None:
    out_BE = out_BE + jnp.dot(
      x_BD, p.w_skip_DE, precision=lax.Precision.HIGHEST
    )
  if sae.layer_norm:
    mean_B1, deviation_B1 = _moments(x_BD)
    out_BE = out_BE * deviation_B1 + mean_B1
  return out_BE


def check(sae: dictionary.Sae, x_BD: jax.Array) -> None:
  """Refuses what is not rows of the dictionary's width."""
  if x_BD.ndim != 2 or x_BD.shape[1] != sae.d_model:
    raise errors.InputError(
      f"activations of shape {x_BD.shape}: this dictionary takes"
      f" [B, {sae.d_model}]; flatten leading axes first"
    )
