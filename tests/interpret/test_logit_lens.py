# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The words of a direction are those of the whole head in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models

from sae_jax import errors
from sae_jax import mesh as mesh_lib
from sae_jax.interpret import logit_lens

N = 35  # more directions than are read at a time
TOP = 7
# A logit is a sum of D products below 16 in float32, less another such sum:
# c · sqrt(D) · eps · 16 with c = 8.
ATOL = 8 * tiny_models.WIDTH**0.5 * float(np.finfo(np.float32).eps) * 16


@pytest.fixture(scope="module")
def vectors_ND():
  rng = np.random.default_rng(5)
  return rng.normal(size=(N, tiny_models.WIDTH)).astype(np.float32)


def float64(x):
  return np.asarray(x.astype(jnp.float32), np.float64)


def truth(model, vectors_ND):
  """(logits [N, words], cosines [N, words]) with whole matrices."""
  norm = model.model.final_norm
  scale_D = float64(norm.scale[...])
  if norm.kind == "rms_plus_one":
    scale_D = 1 + scale_D
  u_VD = float64(model.unembed_VD)[: tiny_models.WORDS] * scale_D
  x_ND = vectors_ND.astype(np.float64)
  if norm.kind == "layer":
    x_ND = x_ND - x_ND.mean(1, keepdims=True)
  unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
  logits_NV = unit_ND * tiny_models.WIDTH**0.5 @ u_VD.T
  logits_NV -= logits_NV.mean(1, keepdims=True)
  if norm.kind == "layer":
    u_VD = u_VD - u_VD.mean(1, keepdims=True)
  cos_NV = unit_ND @ (u_VD / np.linalg.norm(u_VD, axis=1, keepdims=True)).T
  return logits_NV, cos_NV


def words(order_K):
  return [f"w{i}" if i else "<u>" for i in order_K]


def assert_reads(found, logits_NV, cos_NV, atol=ATOL):
  assert len(found) == len(logits_NV)
  for shown, logits_V, cos_V in zip(found, logits_NV, cos_NV, strict=True):
    for name, score_V, value_V in (
      ("promoted", logits_V, logits_V),
      ("suppressed", -logits_V, logits_V),
      ("nearest", cos_V, cos_V),
    ):
      order_K = np.argsort(-score_V)[:TOP]
      assert [token for token, _ in shown[name]] == words(order_K)
      np.testing.assert_allclose(
        [value for _, value in shown[name]], value_V[order_K], atol=atol
      )


@pytest.mark.parametrize("kind", tiny_models.HEADS)
def test_the_words_are_those_of_the_whole_head(words_path, vectors_ND, kind):
  model = tiny_models.make_model(words_path, kind)
  found = logit_lens.read(vectors_ND, model, TOP)
  assert_reads(found, *truth(model, vectors_ND))


@pytest.mark.parametrize("kind", tiny_models.HEADS)
def test_the_logits_are_the_models_own(words_path, vectors_ND, kind):
  """Against the model's norm and head, which know nothing of the folding."""
  model = tiny_models.make_model(words_path, kind)
  # So long that the norm's epsilon does not show (1e-5 of 1e12).
  long_1ND = jnp.asarray(vectors_ND[None] * 1e6)
  logits_NV = float64(
    jnp.einsum(
      "nd,vd->nv",
      model.final_norm(long_1ND)[0],
      model.unembed_VD,
      precision=jax.lax.Precision.HIGHEST,
    )
  )
  if model.model.final_norm.bias is not None:
    bias_D = float64(model.model.final_norm.bias[...])
    logits_NV -= bias_D @ float64(model.unembed_VD).T
  logits_NV = logits_NV[:, : tiny_models.WORDS]
  logits_NV -= logits_NV.mean(1, keepdims=True)
  found = logit_lens.read(vectors_ND, model, TOP)
  for shown, logits_V in zip(found, logits_NV, strict=True):
    for token, value in (*shown["promoted"], *shown["suppressed"]):
      number = int(token.removeprefix("w").replace("<u>", "0"))
      assert value == pytest.approx(logits_V[number], abs=2 * ATOL)


@pytest.mark.parametrize("shards", [2, 3, 8])
def test_a_split_head_reads_like_a_whole_one(words_path, vectors_ND, shards):
  """56 words split over 2 and 8 devices, and stay whole on each of 3."""
  wanted = logit_lens.read(
    vectors_ND, tiny_models.make_model(words_path), tiny_models.WORDS
  )
  mesh = mesh_lib.make(
    mesh_lib.MeshConfig(latent=shards), jax.devices()[:shards]
  )
  model = tiny_models.make_model(words_path, mesh=mesh)
  found = logit_lens.read(vectors_ND, model, tiny_models.WORDS)
  for name in ("promoted", "suppressed", "nearest"):
    for one, other in zip(found, wanted, strict=True):
      assert [t for t, _ in one[name]] == [t for t, _ in other[name]]
      np.testing.assert_allclose(
        [v for _, v in one[name]], [v for _, v in other[name]], atol=ATOL
      )


def test_a_bfloat16_head_is_read_as_it_is(words_path, vectors_ND):
  model = tiny_models.make_model(words_path, dtype=jnp.bfloat16)
  found = logit_lens.read(vectors_ND, model, TOP)
  assert_reads(found, *truth(model, vectors_ND))


def test_length_does_not_matter_and_no_direction_says_nothing(words_path):
  model = tiny_models.make_model(words_path, "layer norm with bias, tied")
  rng = np.random.default_rng(0)
  d_D = rng.normal(size=tiny_models.WIDTH).astype(np.float32)
  zero_D, constant_D = np.zeros_like(d_D), np.full_like(d_D, 0.3)
  found = logit_lens.read([d_D, 1024 * d_D, zero_D, constant_D], model)
  assert found[0] == found[1]
  # A layer norm takes a constant to zero.
  nothing = {"promoted": [], "suppressed": [], "nearest": []}
  assert found[2] == found[3] == nothing
  assert logit_lens.read(np.zeros((0, tiny_models.WIDTH)), model) == []


def test_no_more_words_than_there_are(words_path, vectors_ND):
  model = tiny_models.make_model(words_path)
  (found,) = logit_lens.read(vectors_ND[:1], model, 999)
  assert len(found["promoted"]) == tiny_models.WORDS  # not the head's 56 rows
  assert found["promoted"] == found["suppressed"][::-1]


@pytest.mark.parametrize(
  ("vectors", "top", "message"),
  [
    (np.ones((2, 15)), 5, r"\(2, 15\).*\[N, 16\]"),
    (np.ones(16), 5, r"\[N, 16\]"),
    (np.array([[1.0] * 16, [np.nan] * 16]), 5, "direction 1 .*not finite"),
    (np.ones((1, 16)), 0, "top=0"),
  ],
)
def test_what_cannot_be_read_is_refused(words_path, vectors, top, message):
  with pytest.raises(errors.InputError, match=message):
    logit_lens.read(vectors, tiny_models.make_model(words_path), top)
