# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`topk_encode`: signature, checks, gradient and choice of implementation.

Always exact: kernels that can miss a winner return a bound (`candidates`), and
a batch that it does not clear is done again by the exact path, inside the
compiled program.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax import errors
from sae_jax.ops import dispatch
from sae_jax.ops.pair_grads import api as pair_grads_api
from sae_jax.ops.sparse_decode import api as sparse_decode_api
from sae_jax.ops.topk_encode import candidates as candidates_lib
from sae_jax.ops.topk_encode import cpu, reference, xla

# `(x_BD, w_enc_FD, b_enc_F, k) -> Candidates`.
IMPLEMENTATIONS = {
  "reference": reference.candidates,
  "cpu": cpu.candidates,
  "pallas_tpu": dispatch.when_called(f"{__package__}.pallas_tpu", "candidates"),
  "xla": xla.candidates,
  "pallas_gpu": dispatch.when_called(f"{__package__}.pallas_gpu", "candidates"),
}


@functools.partial(jax.jit, static_argnames=("k", "implementation"))
def topk_encode(
  x_BD: jax.Array,
  w_enc_FD: jax.Array,
  b_enc_F: jax.Array,
  k: int,
  *,
  mask_F: jax.Array | None = None,
  implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """The k largest of `x · w_encᵀ + b_enc` in every row, and their latents.

  Exact. No activation function is applied. Values descend; equal values are
  ordered by latent, lowest first. NaN sorts above everything, so a row with a
  NaN pre-activation returns it in its first slot and a NaN in `x_BD` is
  never hidden. Differentiable; only the selected latents have gradients.

  Args:
    x_BD: inputs, already centred; its dtype decides how the product is
      computed (`reference.pre_activations`).
    w_enc_FD: encoder rows, in the dtype of `x_BD`.
    b_enc_F: encoder bias.
    k: how many to keep, 1 <= k <= F.
    mask_F: latents that may be chosen (True); the others count as -inf and
      appear only, with that value, when fewer than k are allowed.
    implementation: one of `IMPLEMENTATIONS`, or None for the platform's own.

  Returns:
    values_BK float32 (float64 for float64 inputs) and indices_BK int32.

  Raises:
    errors.InputError: shapes or dtypes disagree, k is out of range, or there
      is no such implementation.
  """
  _check(x_BD, w_enc_FD, b_enc_F, k)
  # Refuses an unknown name before anything is traced.
  dispatch.choose("topk_encode", IMPLEMENTATIONS, implementation)
  if mask_F is not None:
    b_enc_F = jnp.where(mask_F, b_enc_F, -jnp.inf)
  arrays = map(jnp.asarray, (x_BD, w_enc_FD, b_enc_F))
  return _topk_encode(*arrays, k, implementation)


def topk_candidates(
  x_BD: jax.Array,
  w_enc_FD: jax.Array,
  b_enc_F: jax.Array,
  k: int,
  *,
  implementation: str | None = None,
) -> candidates_lib.Candidates:
  """What `implementation` finds at its first attempt; no gradient.

  For callers that see more than this call does, such as the k-th value of all
  shards, and decide themselves whether the bound is good enough; `exactly` does
  it again. Arguments and errors as in `topk_encode`.
  """
  _check(x_BD, w_enc_FD, b_enc_F, k)
  find = dispatch.choose("topk_encode", IMPLEMENTATIONS, implementation)
  return find(x_BD, w_enc_FD, b_enc_F, k)


# The exact path that a batch without certificate is done again with.
exactly = xla.candidates


def _check(x_BD, w_enc_FD, b_enc_F, k):
  shapes = f"x {x_BD.shape}, w_enc {w_enc_FD.shape}, b_enc {b_enc_F.shape}"
  if (
    x_BD.ndim != 2
    or w_enc_FD.ndim != 2
    or x_BD.shape[1] != w_enc_FD.shape[1]
    or b_enc_F.shape != w_enc_FD.shape[:1]
  ):
    raise errors.InputError(
      f"topk_encode: {shapes}; expected [B, D], [F, D] and [F]"
    )
  if x_BD.dtype != w_enc_FD.dtype:
    raise errors.InputError(
      f"topk_encode: x is {x_BD.dtype} but w_enc is {w_enc_FD.dtype}; cast one,"
      " their common dtype is the dtype of the product"
    )
  if not 1 <= k <= w_enc_FD.shape[0]:
    raise errors.InputError(
      f"topk_encode: k={k} with {w_enc_FD.shape[0]} latents; need 1 <= k <= F"
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _topk_encode(x_BD, w_enc_FD, b_enc_F, k, implementation):
  found = topk_candidates(
    x_BD, w_enc_FD, b_enc_F, k, implementation=implementation
  )
  if found.bound_B is None:
    return found.values_BK, found.indices_BK

  def again():
    exact = exactly(x_BD, w_enc_FD, b_enc_F, k)
    return exact.values_BK, exact.indices_BK

  return lax.cond(
    found.certified(found.values_BK[:, -1]),
    lambda: (found.values_BK, found.indices_BK),
    again,
  )


def _forward(x_BD, w_enc_FD, b_enc_F, k, implementation):
  values_BK, indices_BK = _topk_encode(
    x_BD, w_enc_FD, b_enc_F, k, implementation
  )
  return (values_BK, indices_BK), (x_BD, w_enc_FD, b_enc_F, indices_BK)


def _backward(k, implementation, saved, cotangents):
  del k
  x_BD, w_enc_FD, b_enc_F, indices_BK = saved
  grad_BK, _ = cotangents
  latents = w_enc_FD.shape[0]
  grad_x_BD = sparse_decode_api.sparse_decode(
    grad_BK, indices_BK, w_enc_FD, implementation=implementation
  )
  grad_w_FD = pair_grads_api.pair_grads(
    grad_BK, indices_BK, x_BD, latents, implementation=implementation
  )
  grad_b_F = pair_grads_api.pair_sums(
    grad_BK, indices_BK, latents, implementation=implementation
  )
  return (
    grad_x_BD.astype(x_BD.dtype),
    grad_w_FD.astype(w_enc_FD.dtype),
    grad_b_F.astype(b_enc_F.dtype),
  )


_topk_encode.defvjp(_forward, _backward)
