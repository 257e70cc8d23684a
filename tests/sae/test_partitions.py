# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Crosscoders' partitions, and what is measured by source."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, sae
from sae_jax.sae import crosscoder, init

F, M, WIDTH = 12, 3, 4
D = M * WIDTH
PARTITION = crosscoder.Partition(sources=M, shared=2, exclusive=(1, 3, 0))
EXCLUSIVE = {2: 0, 3: 1, 4: 1, 5: 1}  # latent -> source


def random_params(seed=0):
  rng = np.random.default_rng(seed)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  return sae.Params(draw(F, D), draw(F, D), draw(F), draw(D))


def blocks(w_FD):
  return np.asarray(w_FD).reshape(-1, M, WIDTH)


def test_initial_rows_are_unit_rows_of_the_form():
  rows_FD = init.unit_rows(jax.random.key(3), jnp.int32(0), F, D)
  found_FD = crosscoder.initial_rows(rows_FD, PARTITION, 0)
  np.testing.assert_allclose(np.linalg.norm(found_FD, axis=1), 1, atol=1e-6)
  found_FMd = blocks(found_FD)
  for latent in range(F):
    own = EXCLUSIVE.get(latent)
    sources = range(M) if own is None else [own]
    for m in range(M):
      if m in sources:
        first_d = found_FMd[latent, sources[0]]
        np.testing.assert_array_equal(found_FMd[latent, m], first_d)
        assert first_d.any()
      else:
        assert not found_FMd[latent, m].any()


def test_projection_is_the_nearest_of_the_form_and_stays():
  params = random_params()
  found = crosscoder.project(params, PARTITION, 0)
  dec_FMd, enc_FMd = blocks(found.w_dec_FD), blocks(found.w_enc_FD)
  wanted_dec, wanted_enc = blocks(params.w_dec_FD), blocks(params.w_enc_FD)
  wanted_dec, wanted_enc = wanted_dec.copy(), wanted_enc.copy()
  wanted_dec[:2] = wanted_dec[:2].mean(1, keepdims=True)
  for latent, source in EXCLUSIVE.items():
    others = [m for m in range(M) if m != source]
    wanted_dec[latent, others] = wanted_enc[latent, others] = 0
  np.testing.assert_allclose(dec_FMd, wanted_dec, rtol=1e-6)
  np.testing.assert_array_equal(enc_FMd, wanted_enc)  # not tied
  np.testing.assert_array_equal(found.b_enc_F, params.b_enc_F)
  # Of a subspace: the rest is orthogonal to everything in it.
  other = crosscoder.project(random_params(1), PARTITION, 0)
  rest = np.asarray(params.w_dec_FD - found.w_dec_FD, np.float64)
  assert abs(np.sum(rest * np.asarray(other.w_dec_FD))) < 1e-5
  assert crosscoder.keeps_to(found, PARTITION)
  assert not crosscoder.keeps_to(params, PARTITION)
  again = crosscoder.project(found, PARTITION, 0)
  np.testing.assert_allclose(again.w_dec_FD, found.w_dec_FD, rtol=1e-6)


def test_a_shard_knows_its_latents():
  params = random_params()
  whole = crosscoder.project(params, PARTITION, 0)
  for first in (0, 4, 8):
    span = slice(first, first + 4)
    shard = dataclasses.replace(
      params,
      w_enc_FD=params.w_enc_FD[span],
      w_dec_FD=params.w_dec_FD[span],
      b_enc_F=params.b_enc_F[span],
    )
    found = crosscoder.project(shard, PARTITION, jnp.int32(first))
    np.testing.assert_array_equal(found.w_dec_FD, whole.w_dec_FD[span])
    np.testing.assert_array_equal(found.w_enc_FD, whole.w_enc_FD[span])


def test_nothing_bound_changes_nothing():
  params = random_params()
  free = crosscoder.Partition(sources=M)
  assert crosscoder.project(params, free, 0) is params


@pytest.mark.parametrize(
  "partition, message",
  [
    (crosscoder.Partition(sources=1, shared=1), "only a crosscoder"),
    (crosscoder.Partition(sources=3, exclusive=(1, 2)), "for each"),
    (crosscoder.Partition(sources=3, shared=9, exclusive=(2, 2, 0)), "are 13"),
    (crosscoder.Partition(sources=5), "does not divide"),
  ],
)
def test_what_no_crosscoder_can_have_is_refused(partition, message):
  with pytest.raises(errors.InputError, match=message):
    crosscoder.check(partition, F, D)


def test_fvu_by_source_is_that_of_each_source_alone():
  rng = np.random.default_rng(0)
  x_BD, error_BD = rng.normal(size=(2, 32, D)) + 1.0
  found_M = crosscoder.fvu_by_source(
    jnp.asarray(x_BD, jnp.float32), jnp.asarray(error_BD, jnp.float32), M, None
  )
  for m in range(M):
    part = slice(m * WIDTH, (m + 1) * WIDTH)
    x, e = x_BD[:, part], error_BD[:, part]
    wanted = np.sum(e**2) / np.sum((x - x.mean(0)) ** 2)
    # sums of 128 float32 squares
    np.testing.assert_allclose(found_M[m], wanted, rtol=1e-5)


def test_blocks_of_rows():
  w_FD = np.zeros((3, 6), np.float32)
  w_FD[0, :3], w_FD[0, 3:] = 1, 2
  w_FD[1, :3], w_FD[1, 3:] = 3, -1
  w_FD[2] = 1
  np.testing.assert_array_equal(
    crosscoder.largest_blocks(w_FD, 2), [[2] * 3, [3] * 3, [1] * 3]
  )
  np.testing.assert_allclose(
    crosscoder.block_norms(jnp.asarray(w_FD), 2) / np.sqrt(3),
    [[1, 2], [3, 1], [1, 1]],
    rtol=1e-6,
  )
