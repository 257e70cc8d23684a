# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A small random store and dictionary."""

import numpy as np

from sae_jax import sae, store

HOOK = "blocks.1.hook_resid_post"


def make_sae(latents, d_model, k, seed=0, center=0.0):
  """Some latents hardly ever fire, most rows have fewer than k active."""
  rng = np.random.default_rng(seed)
  w_FD = rng.normal(size=(latents, d_model)).astype(np.float32)
  w_FD /= np.linalg.norm(w_FD, axis=1, keepdims=True)
  params = sae.Params(
    w_enc_FD=w_FD,
    w_dec_FD=w_FD.copy(),
    b_enc_F=rng.normal(-1.5, 1, latents).astype(np.float32),
    b_dec_D=rng.normal(center, 0.3, d_model).astype(np.float32),
  )
  return sae.make_sae(params, k)


def make_store(path, documents, x_ND, rows_N2=None, **sizes):
  store.write_arrays(
    path,
    {HOOK: x_ND},
    documents=documents,
    rows_N2=rows_N2,
    **{"read_rows": 16, "write_rows": 64} | sizes,
  )
  return store.open_store(path)
