# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a dictionary makes of rows, for comparison with a format's formula."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from sae_jax import sae


def both(dictionary, x_BD):
  """Dense activations and the output.

  With `encode_dense` and `add_rest`, which is what `decode` does after the sum
  over latents; that sum would be compiled for every kind of dictionary.
  """
  # Metadata is part of what a program is compiled for, and not of its numbers.
  plain = dataclasses.replace(dictionary, metadata=sae.Metadata())
  acts_BF = np.asarray(sae.encode_dense(plain, x_BD))
  out_BE = acts_BF @ np.asarray(plain.params.w_dec_FD)
  return acts_BF, np.asarray(sae.add_rest(plain, jnp.asarray(out_BE), x_BD))


def assert_same(ours, expected, atol=1e-5):
  """The contract's 1e-5.

  At the tests' sizes sums have at most 48 float32 terms of size about 1: 48
  roundings of 2^-24 of partial sums up to 4.
  """
  for a, b in zip(ours, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)
