# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Latents and directions of a model on fixed sequences."""

import ml_dtypes
import numpy as np
import pytest
import tiny_models

from sae_jax import errors, lm, sae
from sae_jax import mesh as mesh_lib
from sae_jax.interpret import reading

HOOK = "blocks.0.hook_resid_post"
F, K = 48, 6
LATENTS = (3, 40, 17, 9, 0)


@pytest.fixture(scope="module")
def dictionary():
  rng = np.random.default_rng(0)
  w_FD = rng.normal(size=(F, tiny_models.WIDTH)).astype(np.float32)
  w_FD /= np.linalg.norm(w_FD, axis=1, keepdims=True)
  b_enc_F = rng.normal(size=F).astype(np.float32)
  b_dec_D = rng.normal(size=tiny_models.WIDTH).astype(np.float32)
  return sae.make_sae(sae.Params(w_FD, w_FD.copy(), b_enc_F, b_dec_D), K)


@pytest.fixture(scope="module")
def sequences():
  rng = np.random.default_rng(1)
  found = []
  for length in (30, 3, 12, 5, 5, 30, 12, 3, 30, 5, 5):
    start = int(rng.integers(1, length))
    stop = int(rng.integers(start + 1, length + 1))
    tokens = rng.integers(1, tiny_models.WORDS, length).tolist()
    found.append((tuple(tokens), start, stop))
  return found


@pytest.fixture(scope="module")
def directions_VD():
  return np.random.default_rng(2).normal(0, 3, (4, tiny_models.WIDTH))


@pytest.fixture(scope="module")
def model(words_path):
  return tiny_models.make_model(words_path)


def one_by_one(model, dictionary, sequences, directions_VD):
  """The same numbers, every sequence alone, in numpy from the rows on."""
  latents, projections, norms = [], [], []
  unit_VD = directions_VD / np.linalg.norm(directions_VD, axis=1)[:, None]
  for tokens, start, stop in sequences:
    x_BTD = lm.activations(model, np.array([tokens]), (HOOK,))[HOOK]
    x_ND = np.asarray(x_BTD)[0, start:stop]
    norms.append(np.linalg.norm(x_ND, axis=1).mean())
    projections.append((x_ND @ unit_VD.T).mean(axis=0))
    acts_NF = sae.encode_dense(dictionary, x_ND.astype(ml_dtypes.bfloat16))
    latents.append(np.asarray(acts_NF)[:, list(LATENTS)].mean(axis=0))
  return map(np.array, (latents, projections, norms))


def check(found, wanted, sequences):
  # Sums of up to 30 rows of 16 numbers of size 10 in f32, through one block:
  # 30 * 10 * 2^-23 = 4e-5; the rows that are encoded are rounded to bfloat16,
  # where one bit may differ: 10 * 2^-8 in one of 16 coordinates.
  latents_PL, projections_PV, norm_P = wanted
  np.testing.assert_allclose(found.projections_PV, projections_PV, atol=1e-4)
  np.testing.assert_allclose(found.norm_P, norm_P, atol=1e-4)
  np.testing.assert_allclose(found.latents_PL, latents_PL, atol=0.04)
  assert found.rows_P.tolist() == [b - a for _, a, b in sequences]


@pytest.fixture(scope="module")
def wanted(model, dictionary, sequences, directions_VD):
  return tuple(one_by_one(model, dictionary, sequences, directions_VD))


@pytest.mark.parametrize(
  "shape",
  [(1, 1, 1), (2, 2, 2)],
  ids=lambda s: "x".join(map(str, s)),
)
def test_a_batch_is_its_sequences(
  shape, model, words_path, dictionary, sequences, directions_VD, wanted
):
  assert (wanted[0] > 0).any(axis=0).sum() >= 3  # latents that fire
  if shape != (1, 1, 1):
    mesh = mesh_lib.make(
      mesh_lib.MeshConfig(sae=shape[0], data=shape[1], latent=shape[2])
    )
    model = tiny_models.make_model(words_path, mesh=mesh)
  found = reading.read(
    model,
    HOOK,
    sequences,
    dictionary=dictionary,
    latents=LATENTS,
    directions_VD=directions_VD,
    batch_size=4,
  )
  check(found, wanted, sequences)
  assert found.latents_PL.dtype == found.projections_PV.dtype == np.float64


def test_nothing_asked_for_leaves_the_norm(model, sequences):
  found = reading.read(model, HOOK, sequences)
  assert found.latents_PL.shape == (len(sequences), 0)
  assert found.projections_PV.shape == (len(sequences), 0)
  assert (found.norm_P > 0).all()


def test_the_mean_is_what_projections_on_the_axes_are(model, sequences):
  found = reading.read(
    model, HOOK, sequences, directions_VD=np.eye(model.config.d_model)
  )
  np.testing.assert_array_equal(found.mean_PD, found.projections_PV)
  assert found.mean_PD.any()


def test_what_comes_after_the_span_does_not_matter(model, sequences):
  """Not even where it would be too long for a table of positions."""
  short = [(tokens[:stop], start, stop) for tokens, start, stop in sequences]
  one, two = (reading.read(model, HOOK, s) for s in (sequences, short))
  np.testing.assert_array_equal(one.norm_P, two.norm_P)


def test_a_table_of_positions_that_is_no_multiple_of_the_padding(words_path):
  model = tiny_models.make_model(words_path, "layer norm with bias, tied")
  longest = (tuple([3] * tiny_models.POSITIONS), 1, tiny_models.POSITIONS)
  assert reading.read(model, HOOK, [longest]).rows_P == [39]
  with pytest.raises(errors.InputError, match="positions: layer norm"):
    reading.read(model, HOOK, [((*longest[0], 3), 1, 41)])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(sequences=[]), "no sequences to read"),
    (dict(sequences=[((1, 2), 2, 2)]), "sequence 0: positions 2 to 2 of 2"),
    (dict(sequences=[((1, 2), 0, 3)]), "sequence 0: positions 0 to 3 of 2"),
    (dict(dictionary=None), "there is no dictionary"),
    (dict(latents=(1, F)), f"latent {F}: give different latents of 0 to"),
    (dict(latents=(1, 1)), "a latent twice"),
    (dict(directions_VD=np.zeros((1, 3))), r"directions of shape \(1, 3\)"),
    (
      dict(directions_VD=np.zeros((1, tiny_models.WIDTH))),
      r"directions of norms \[0.0\]",
    ),
    (dict(hook="blocks.7.hook_resid_post"), "layers are 0 to 1"),
  ],
)
def test_refusals(model, dictionary, change, message):
  given = dict(
    hook=HOOK, sequences=[((1, 2), 0, 2)], dictionary=dictionary, latents=(1,)
  )
  given |= change
  with pytest.raises(errors.InputError, match=message):
    reading.read(model, **given)


def test_a_dictionary_of_another_width(model):
  eye = np.eye(8, dtype=np.float32)
  zeros = np.zeros(8, np.float32)
  other = sae.make_sae(sae.Params(eye, eye.copy(), zeros, zeros), 2)
  with pytest.raises(errors.InputError, match="this SAE is 8 wide"):
    reading.read(model, HOOK, [((1, 2), 0, 2)], dictionary=other, latents=(1,))


def test_residuals_that_are_not_finite_are_named(words_path):
  model = tiny_models.make_model(words_path)
  embed_VD = model.model.embed_VD[...].at[5].set(np.nan)
  model.model.embed_VD[...] = embed_VD
  with pytest.raises(errors.InputError, match="not finite on sequence 1"):
    reading.read(model, HOOK, [((1, 2), 0, 2), ((1, 5), 0, 2)])
