# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A store in which latent j fires on the word j, and how strongly is known."""

import numpy as np

from sae_jax import sae, store

HOOK = "blocks.0.hook_resid_post"
D = 16  # latent j reads coordinate j
DENSE, RARE, SILENT = 1, 2, 3  # nearly everywhere, in 5 documents, nowhere
COMMON = (4, 5, 6)
DOCUMENTS, LENGTH = 80, 12
COPIES = 5  # documents that repeat others
WORDS = 300  # those from D on move no latent


class Words:
  def token_strings(self, ids):
    return [f" w{i}" for i in ids]


def dictionary():
  eye_FD = np.eye(D, dtype=np.float32)
  zeros = np.zeros(D, np.float32)
  return sae.make_sae(sae.Params(eye_FD, eye_FD.copy(), zeros, zeros), 2)


def write(path, gain=1.0):
  """Documents of random words; position 0 is never a row."""
  rng = np.random.default_rng(0)
  words = [*COMMON, *range(7, D), *range(D, WORDS)]
  chance = np.where(np.array(words) < D, 0.05, 0.4 / (WORDS - D))
  documents = rng.choice(words, (DOCUMENTS, LENGTH), p=chance / chance.sum())
  documents[:, 3::3] = DENSE
  documents[:5, 5] = RARE
  documents[-COPIES:] = documents[10 : 10 + COPIES]
  strength = rng.uniform(1, 9, documents.shape)
  rows_N2 = np.array(
    [(d, t) for d in range(DOCUMENTS) for t in range(1, LENGTH)], np.int32
  )
  x_ND = np.zeros((len(rows_N2), D), np.float32)
  words_N = documents[tuple(rows_N2.T)]
  on_N = np.flatnonzero(words_N < D)
  x_ND[on_N, words_N[on_N]] = gain * strength[tuple(rows_N2[on_N].T)]
  store.write_arrays(
    path,
    {HOOK: x_ND},
    documents=list(documents),
    rows_N2=rows_N2,
    read_rows=16,
    write_rows=64,
  )
  return store.open_store(path)
