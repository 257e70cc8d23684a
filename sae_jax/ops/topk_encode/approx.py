# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""An encoder that may miss winners, by choice: XLA's approximate top-k.

On a TPU its first reduction is fused with the product (PartialReduce), without
a kernel of ours. Other platforms compute it exactly, at the cost of a sort.
"""

import jax
from jax import lax

from sae_jax.ops import rows
from sae_jax.ops.topk_encode import candidates as candidates_lib
from sae_jax.ops.topk_encode import reference, xla


def candidates(
  x_BD: jax.Array,
  w_enc_FD: jax.Array,
  b_enc_F: jax.Array,
  k: int,
  recall_target: float,
) -> candidates_lib.Candidates:
  """`api.topk_encode`, but each winner is found with a chance of its own.

  Args:
    x_BD: as in `api.topk_encode`, like the next three.
    w_enc_FD: encoder rows.
    b_enc_F: encoder bias.
    k: how many to keep.
    recall_target: the expected share of winners that are found, in (0, 1), if
      they lie at random places (Chern et al. 2022, arXiv:2206.14286).

  Returns:
    Values that descend, without a bound. Equal values are in no certain order.
  """

  def find(x_CD):
    pre_CF = reference.pre_activations(x_CD, w_enc_FD, b_enc_F)
    return candidates_lib.Candidates(
      *lax.approx_max_k(pre_CF, k, recall_target=recall_target)
    )

  return rows.map_chunks(find, xla.chunk_rows(w_enc_FD.shape[0]), x_BD)
