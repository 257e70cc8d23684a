# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What latents do at given tokens in a model that is run, not in a store.

For a few thousand tokens: each document is run from its start to the last
token that is asked for.
"""

from collections.abc import Mapping

import jax
import ml_dtypes
import numpy as np

from sae_jax import lm
from sae_jax.interpret import on_mesh, scan, search
from sae_jax.lm import batch as batch_lib

_SEQUENCES = 8  # at a time through the model
_ROWS = 256  # encoded rows are padded to a multiple: few shapes to compile


def read(
  model: lm.LanguageModel,
  hook: str,
  keys_M: np.ndarray,
  documents: Mapping[int, np.ndarray],
  following: search.Search,
  *,
  mesh: jax.sharding.Mesh,
) -> dict[tuple[int, int], float]:
  """The answer of `search.Search.read`, from the model itself.

  Args:
    model: loaded at least to the hook.
    hook: where the dictionary reads.
    keys_M: sorted `scan.key`s.
    documents: at least those of the keys: number -> token ids.
    following: the latents to look at.
    mesh: where rows are encoded.

  Returns:
    (slot, key) -> activation where it fires, and (-1, key) -> 0 for every key.
    Activations are rounded to bfloat16 before they are encoded, as a store's
    are.
  """
  document_M, position_M = keys_M >> 32, keys_M & 0xFFFFFFFF
  last = {
    int(d): int(position_M[document_M == d].max())
    for d in np.unique(document_M)
  }
  # Alike lengths together, as each batch is padded to its longest.
  order = sorted(last, key=lambda d: last[d])
  values: dict[tuple[int, int], float] = {}
  for first in range(0, len(order), _SEQUENCES):
    part = order[first : first + _SEQUENCES]
    x_BTD = _run(model, hook, [documents[d][: last[d] + 1] for d in part])
    wanted_M = np.isin(document_M, part)
    rows = [part.index(d) for d in document_M[wanted_M].tolist()]
    x_ND = x_BTD[rows, position_M[wanted_M]]
    values |= _encode(following, x_ND, keys_M[wanted_M].tolist(), mesh)
  return values


def _run(
  model: lm.LanguageModel, hook: str, documents: list[np.ndarray]
) -> np.ndarray:
  """Activations x_BTD bfloat16 of documents, on every process."""
  tokens_BT, mask_BT = batch_lib.pad(
    [tokens_T.tolist() for tokens_T in documents],
    _SEQUENCES,
    max(map(len, documents)),
    left=False,
  )
  if limit := model.config.learned_positions:  # padding may lie beyond it
    tokens_BT, mask_BT = tokens_BT[:, :limit], mask_BT[:, :limit]
  (x_BTD,) = lm.activations(model, tokens_BT, (hook,), mask_BT).values()
  everywhere = jax.NamedSharding(model.mesh, jax.P())
  return np.asarray(jax.device_put(x_BTD, everywhere)).astype(
    ml_dtypes.bfloat16
  )


def _encode(
  following: search.Search,
  x_ND: np.ndarray,
  keys: list[int],
  mesh: jax.sharding.Mesh,
) -> dict[tuple[int, int], float]:
  values = {(-1, key): 0.0 for key in keys}
  step = _ROWS * on_mesh.lanes(mesh)
  x_BD = scan.put([x_ND], -(-len(x_ND) // step) * step, mesh)
  for row, slot, value in zip(*following.active(x_BD, len(keys)), strict=True):
    values[int(slot), keys[row]] = float(value)
  return values
