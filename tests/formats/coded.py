# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a dictionary makes of rows, for comparison with a format's formula."""

import dataclasses

import numpy as np

from sae_jax import sae


def both(dictionary, x_BD):
  """Dense activations and the output."""
  # Metadata is part of what a program is compiled for, and not of its numbers.
  plain = dataclasses.replace(dictionary, metadata=sae.Metadata())
  acts_BF = sae.encode_dense(plain, x_BD)
  all_BF = np.broadcast_to(np.arange(plain.latents, dtype="i4"), acts_BF.shape)
  return np.asarray(acts_BF), np.asarray(
    sae.decode(plain, acts_BF, all_BF, x_BD)
  )


def assert_same(ours, expected, atol=1e-5):
  """The contract's 1e-5.

  At the tests' sizes sums have at most 48 float32 terms of size about 1: 48
  roundings of 2^-24 of partial sums up to 4.
  """
  for a, b in zip(ours, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)
