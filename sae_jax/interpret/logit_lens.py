# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Which words a direction of the residual stream says, read off the head.

No text is run: this is the direct path from the stream through the final norm
to the logits, and says nothing of what later layers make of the direction.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax import errors, lm
from sae_jax.interpret import best_rows

_VECTORS = 32  # at a time, so that every call has one compiled shape


def read(
  vectors_ND, model: lm.LanguageModel, top: int = 10
) -> list[dict[str, Any]]:
  """The words each direction promotes and suppresses, and those nearest to it.

  The final norm is folded in: a direction d is centred where the norm centres
  (layer norm), divided by its own root mean square, and multiplied by the
  norm's scale (1 + weight for gemma), after which the head gives logits. So
  d and 2d read the same. The norm's bias is left out, as it is the same for
  every direction; a soft-cap is left out, as it keeps the order.

  Logits are relative to their mean over the vocabulary, which softmax does not
  see. `nearest` ranks by the cosine between d and each word's row of the head
  seen from the stream (the row times the norm's scale, centred likewise), the
  reading of Wang et al. 2025 (arXiv 2506.19823).

  Args:
    vectors_ND: N directions, any scale; numpy or jax.
    model: with its head loaded.
    top: how many words of each kind.

  Returns:
    Per direction {"promoted": [[token, logit], …], "suppressed": …,
    "nearest": [[token, cosine], …]}, strongest first; rows of the head beyond
    the tokenizer's words take no part. Empty lists for a direction of length 0.

  Raises:
    errors.InputError: another width than the model's, numbers that are not
      finite, or a model without its head.
  """
  vectors_ND = np.asarray(vectors_ND, np.float32)
  _check(vectors_ND, model)
  if top < 1:
    raise errors.InputError(f"top={top}: ask for at least 1 word")
  rows = min(model.config.vocab_size, model.tokenizer.vocab_size)
  scale_D, centred = _norm(model)
  read_ND = _prepare(vectors_ND, centred)
  mean_D = _mean_row(model.unembed_VD, rows)
  results = []
  for start in range(0, len(read_ND), _VECTORS):
    part_ND = read_ND[start : start + _VECTORS]
    padded_ND = np.zeros((_VECTORS, read_ND.shape[1]), np.float32)
    padded_ND[: len(part_ND)] = part_ND
    lists = best_rows.best_rows(
      model.unembed_VD,
      (jnp.asarray(padded_ND), scale_D, mean_D),
      score=_score_centred if centred else _score,
      count=min(top, rows),
      rows=rows,
      mesh=model.mesh,
    )
    lists = jax.device_get(lists)
    results += [
      _words(model, lists, i) if part_ND[i].any() else _nothing()
      for i in range(len(part_ND))
    ]
  return results


def _check(vectors_ND: np.ndarray, model: lm.LanguageModel) -> None:
  if vectors_ND.ndim != 2 or vectors_ND.shape[1] != model.config.d_model:
    raise errors.InputError(
      f"directions of shape {vectors_ND.shape}: {model.source} takes"
      f" [N, {model.config.d_model}]; use the model that the SAE was trained on"
    )
  bad = ~np.isfinite(vectors_ND).all(axis=1)
  if bad.any():
    raise errors.InputError(
      f"direction {int(np.argmax(bad))} holds numbers that are not finite;"
      " check where it was computed"
    )


def _norm(model: lm.LanguageModel) -> tuple[jax.Array, bool]:
  """The final norm's scale as it multiplies, and whether it centres."""
  norm = model.model.final_norm
  if norm is None:
    raise errors.InputError(
      f"{model.source}: the final norm and head are not loaded; load the model"
      " without layers="
    )
  scale_D = norm.scale[...].astype(jnp.float32)
  if norm.kind == "rms_plus_one":
    scale_D = 1.0 + scale_D
  return scale_D, norm.kind == "layer"


def _prepare(vectors_ND: np.ndarray, centred: bool) -> np.ndarray:
  """Centred where the norm centres, then of root mean square 1 (or all 0)."""
  x_ND = vectors_ND.astype(np.float64)
  size_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
  if centred:
    x_ND = x_ND - x_ND.mean(axis=1, keepdims=True)
  rms_N1 = np.sqrt(np.mean(np.square(x_ND), axis=1, keepdims=True))
  # What centring leaves of a constant vector is rounding, not a direction.
  alive_N1 = rms_N1 > 1e-12 * size_N1
  return np.where(alive_N1, x_ND / np.where(alive_N1, rms_N1, 1), 0).astype(
    np.float32
  )


@jax.jit
def _sum_rows(w_VD, rows):
  in_V = (jnp.arange(w_VD.shape[0]) < rows).astype(w_VD.dtype)
  return jnp.einsum(
    "v,vd->d",
    in_V,
    w_VD,
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )


def _mean_row(w_VD: jax.Array, rows: int) -> jax.Array:
  return _sum_rows(w_VD, rows) / rows


def _score(w_bD, x_ND, scale_D, mean_D):
  """Promotion, suppression and cosine of a block of words, each [N, b]."""
  return _scores(w_bD * scale_D[None, :], x_ND, scale_D, mean_D)


def _score_centred(w_bD, x_ND, scale_D, mean_D):
  u_bD = w_bD * scale_D[None, :]
  u_bD = u_bD - jnp.mean(u_bD, axis=1, keepdims=True)
  return _scores(u_bD, x_ND, scale_D, mean_D)


def _scores(u_bD, x_ND, scale_D, mean_D):
  highest = jax.lax.Precision.HIGHEST
  raw_Nb = jnp.einsum("nd,bd->nb", x_ND, u_bD, precision=highest)
  mean_N = jnp.einsum("nd,d->n", x_ND, scale_D * mean_D, precision=highest)
  logit_Nb = raw_Nb - mean_N[:, None]
  # |x| is the root of D, as its root mean square is 1.
  length_b = jnp.linalg.norm(u_bD, axis=1) * x_ND.shape[1] ** 0.5
  safe_b = jnp.where(length_b > 0, length_b, 1)
  return logit_Nb, -logit_Nb, raw_Nb / safe_b[None, :]


def _words(model: lm.LanguageModel, lists, i: int) -> dict[str, Any]:
  promoted, suppressed, nearest = (
    _pairs(model, values_NK[i], ids_NK[i]) for values_NK, ids_NK in lists
  )
  return {
    "promoted": promoted,
    "suppressed": [[token, -value] for token, value in suppressed],
    "nearest": nearest,
  }


def _pairs(model: lm.LanguageModel, values_K, ids_K) -> list[list]:
  tokens = model.tokenizer.token_strings(ids_K.tolist())
  return [
    [token, float(value)] for token, value in zip(tokens, values_K, strict=True)
  ]


def _nothing() -> dict[str, Any]:
  return {"promoted": [], "suppressed": [], "nearest": []}
