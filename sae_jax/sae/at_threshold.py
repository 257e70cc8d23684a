# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""BatchTopK where there is no batch: latents above one threshold are active.

The threshold follows the smallest values that training batches have kept
(Bussmann et al. 2024, arXiv:2412.06410, §3).
"""

import jax
import jax.numpy as jnp
from jax import lax

from sae_jax.ops import rows as rows_lib
from sae_jax.ops.topk_encode import reference
from sae_jax.sae import losses

_CHUNK_ELEMENTS = 1 << 23  # pre-activations: 32 MiB
_STEPS = 1000  # that the running mean is over, at most


def follow(
  threshold: jax.Array, smallest: jax.Array, step: jax.Array
) -> jax.Array:
  """The running mean of the smallest kept values, with this step's.

  The past weighs 0.999, as in `dictionary_learning`, or less in early steps: a
  mean over about the last tenth of them, as thresholds move at the start.

  Args:
    threshold: so far; does not count in step 0.
    smallest: of this batch; infinite, and ignored, if no latent was active.
    step: from 0.
  """
  step = step.astype(jnp.float32)
  past = jnp.minimum(step / (step + 9), 1 - 1 / _STEPS)
  moved = past * threshold + (1 - past) * smallest
  return jnp.where(jnp.isposinf(smallest), threshold, moved)


def measure(
  params,
  x_BD: jax.Array,
  target_BE: jax.Array | None,
  threshold: jax.Array,
  spec: losses.LossSpec,
) -> losses.Report:
  """FVU and L0 with the threshold, and which latents fire; the rest is 0.

  Args:
    params: this shard's parameters.
    x_BD: this shard's rows, scaled.
    target_BE: what they are decoded to; None: themselves.
    threshold: of pre-activations, above which a latent is active.
    spec: of the training loss.
  """
  inputs_BD, wanted_BE = losses.encoder_inputs(params, x_BD, target_BE, spec)
  dtype = spec.matmul_dtype or x_BD.dtype
  enc_FD = params.w_enc_FD.astype(dtype)

  def add(carry, x_RD, wanted_RE):
    active, fired_F = carry
    pre_RF = reference.pre_activations(
      x_RD.astype(dtype), enc_FD, params.b_enc_F
    )
    # A NaN is kept, so that it is seen.
    values_RF = jnp.where(pre_RF <= threshold, 0, jax.nn.relu(pre_RF))
    out_RE = jnp.dot(
      values_RF, params.w_dec_FD, precision=lax.Precision.HIGHEST
    )
    if spec.latent_axis is not None:
      out_RE = lax.psum(out_RE, spec.latent_axis)
    active_RF = values_RF > 0
    carry = active + jnp.sum(active_RF), fired_F | jnp.any(active_RF, axis=0)
    return carry, out_RE - wanted_RE

  start = jnp.zeros((), jnp.int32), jnp.zeros((params.latents,), bool)
  (active, fired_F), error_BE = rows_lib.scan_chunks(
    add,
    start,
    max(8, _CHUNK_ELEMENTS // params.latents),
    inputs_BD,
    wanted_BE,
  )
  return losses.reconstruction_report(
    x_BD if target_BE is None else target_BE, error_BE, active, fired_F, spec
  )
