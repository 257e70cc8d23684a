# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The real libraries, imported once, and dictionaries of every kind."""

import dataclasses
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import sae


def _imported(name):
  pytest.importorskip("torch")
  with warnings.catch_warnings():
    # Its own dependencies warn on import; ours do not.
    warnings.simplefilter("ignore")
    return pytest.importorskip(
      name, reason=f"{name} is not installed: pip install sae-jax[peers]"
    )


@pytest.fixture(scope="session")
def sae_lens():
  return _imported("sae_lens")


@pytest.fixture(scope="session")
def eai_sparsify():
  return _imported("sparsify")


@pytest.fixture(scope="session")
def dictionary_learning():
  return _imported("dictionary_learning.utils")


class Kinds:
  """Small dictionaries, and what they do to rows."""

  D, E, F, K, B = 24, 18, 96, 5, 16

  def make(
    self,
    activation="topk",
    *,
    out=None,
    skip=False,
    seed=0,
    metadata=None,
    **options,
  ):
    """A random dictionary; decoder rows are of norm 1."""
    rng = np.random.default_rng(seed)

    def draw(*shape, scale=0.1):
      return jnp.asarray(scale * rng.normal(size=shape), "float32")

    out = out or self.D
    w_dec_FD = rng.normal(size=(self.F, out)).astype(np.float32)
    w_dec_FD /= np.linalg.norm(w_dec_FD, axis=1, keepdims=True)
    extra = {}
    if activation == "jumprelu":
      extra["threshold_F"] = jnp.abs(draw(self.F, scale=0.5))
    if activation == "gated":
      extra = {"log_gain_F": draw(self.F), "b_mag_F": draw(self.F)}
    if skip:
      extra["w_skip_DE"] = draw(self.D, out)
    params = sae.Params(
      w_enc_FD=draw(self.F, self.D, scale=0.3),
      w_dec_FD=jnp.asarray(w_dec_FD),
      b_enc_F=draw(self.F),
      b_dec_D=draw(out, scale=1),
      **extra,
    )
    options.setdefault("centred", out == self.D and not skip)
    k = self.K if activation == "topk" else 40
    return sae.make_sae(params, k, metadata, activation=activation, **options)

  def rows(self, seed=1):
    x_BD = np.random.default_rng(seed).normal(size=(self.B, self.D))
    return x_BD.astype(np.float32)

  def ours(self, dictionary, x_BD):
    """Dense activations and reconstructions."""
    # Metadata is part of what is compiled; kinds are compiled once.
    dictionary = dataclasses.replace(dictionary, metadata=sae.Metadata())
    acts_BF = sae.encode_dense(dictionary, jnp.asarray(x_BD))
    out_BE = jnp.asarray(np.asarray(acts_BF) @ dictionary.params.w_dec_FD)
    return np.asarray(acts_BF), np.asarray(
      sae.add_rest(dictionary, out_BE, jnp.asarray(x_BD))
    )

  def same(self, ours, theirs, atol=1e-5):
    # Sums of D (encoder) and of at most F (decoder) terms of size ~1 in float32
    # differ by about sqrt(96)·6e-8·|x·w| ~ 1e-6; the contract is 1e-5.
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=atol)
    assert np.count_nonzero(ours[0])  # something was active
    assert not ours[0].all()

  def assert_equal(self, a, b):
    """Two dictionaries are one, but for their metadata."""
    for field in dataclasses.fields(sae.Params):
      left, right = getattr(a.params, field.name), getattr(b.params, field.name)
      if left is None or right is None:
        assert left is right, field.name
      else:
        np.testing.assert_array_equal(left, right, field.name)
    for name in ("k", "activation", "centred", "layer_norm", "sources"):
      assert getattr(a, name) == getattr(b, name), name


@pytest.fixture(scope="session")
def kinds():
  return Kinds()
