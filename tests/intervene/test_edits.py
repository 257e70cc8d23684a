# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Interventions against formulas in numpy and hooks in torch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import steered_models
import torch

from sae_jax import errors, lm
from sae_jax import mesh as mesh_lib
from sae_jax.intervene import edits

HOOK = "blocks.1.hook_resid_post"
B, T, D, N = 3, 6, steered_models.D, 4
ROW_B = np.asarray([2, 0, 2])
LENGTH_B = np.asarray([6, 4, 5])
END_B = np.asarray([3, 2, 5])
MASK_BT = np.arange(T)[None, :] < LENGTH_B[:, None]
PROMPT_BT = np.arange(T)[None, :] < END_B[:, None]
SCOPES = {
  "all": MASK_BT,
  "prompt": MASK_BT & PROMPT_BT,
  "response": MASK_BT & ~PROMPT_BT,
}
# Sums of up to 32 terms of f32, each rounded, of numbers up to about 40:
# sqrt(32) * eps * 40 = 3e-5.
ATOL = 3e-5

_rng = np.random.default_rng(0)
H_BTD = (4 * _rng.normal(size=(B, T, D))).astype(np.float32)
VECTORS_ND = _rng.normal(size=(N, D)).astype(np.float32)
# The second subspace has a row twice, the third a zero row.
BASES_NRD = _rng.normal(size=(N, 2, D)).astype(np.float32)
BASES_NRD[1, 1] = -3 * BASES_NRD[1, 0]
BASES_NRD[2, 1] = 0
LATENTS_NL = np.asarray([[3, 9, 17], [5, -1, -1], [60, 0, 31], [1, 2, -1]])
VALUES_NL = np.asarray([[0, 2, 1], [4, 9, 9], [3, 0, -1], [0, 0, 9]], "f4")


def activations(x_D: np.ndarray) -> np.ndarray:
  """All latents of one row, by sorting."""
  p = steered_models.dictionary().params
  w_FD, b_F, b_D = (
    np.asarray(x, np.float64) for x in (p.w_enc_FD, p.b_enc_F, p.b_dec_D)
  )
  pre_F = w_FD @ (x_D - b_D) + b_F
  kept_F = pre_F >= np.sort(pre_F)[-steered_models.K]
  return np.where(kept_F, np.maximum(pre_F, 0), 0)


def added(x_D, n):
  return x_D + VECTORS_ND[n]


def projected(x_D, n):
  basis_RD = BASES_NRD[n].astype(np.float64)
  weights_R = np.linalg.lstsq(basis_RD.T, x_D.astype(np.float64))[0]
  return x_D - weights_R @ basis_RD


def clamped(x_D, n):
  active_F = activations(x_D)
  w_FD = np.asarray(steered_models.dictionary().params.w_dec_FD)
  y_D = x_D.astype(np.float64)
  for latent, value in zip(LATENTS_NL[n], VALUES_NL[n], strict=True):
    if latent >= 0:
      y_D = y_D + (value - active_F[latent]) * w_FD[latent]
  return y_D


def make(kind: str, where: edits.Where = "all", hook: str = HOOK):
  if kind == "add":
    return edits.add(hook, VECTORS_ND, where)
  if kind == "project_out":
    return edits.project_out(hook, BASES_NRD, where)
  dictionary = steered_models.dictionary()
  return edits.clamp(hook, dictionary, LATENTS_NL, VALUES_NL, where)


ORACLES = {"add": added, "project_out": projected, "clamp": clamped}


def apply(interventions, h_BTD=H_BTD, mask_BT=MASK_BT, end_B=END_B):
  for edit in interventions.lm_edits(ROW_B, end_B):
    h_BTD = jax.jit(edit.fn)(h_BTD, mask_BT, *edit.args)
  return np.asarray(h_BTD)


@pytest.mark.parametrize("where", ["all", "prompt", "response"])
@pytest.mark.parametrize("kind", list(ORACLES))
def test_every_row_undergoes_its_own_where_it_should(kind, where):
  found_BTD = apply(make(kind, where))
  scope_BT = SCOPES[where]
  np.testing.assert_array_equal(found_BTD[~scope_BT], H_BTD[~scope_BT])
  for b, t in np.argwhere(scope_BT):
    expected_D = ORACLES[kind](H_BTD[b, t], ROW_B[b])
    np.testing.assert_allclose(found_BTD[b, t], expected_D, atol=ATOL)


def test_while_a_model_writes_the_prompt_is_what_comes_at_once():
  one_B1D = H_BTD[:, :1]
  live_B1 = np.ones((B, 1), bool)
  for where, of_prompt, of_new in (
    ("all", True, True),
    ("prompt", True, False),
    ("response", False, True),
  ):
    some = make("add", where)
    prompt_BTD = apply(some, end_B=None)
    assert (prompt_BTD != H_BTD)[MASK_BT].any() == of_prompt
    new_B1D = apply(some, one_B1D, live_B1, end_B=None)
    assert (new_B1D != one_B1D).any() == of_new
    np.testing.assert_array_equal(prompt_BTD[~MASK_BT], H_BTD[~MASK_BT])


def test_what_is_projected_out_is_gone_and_nothing_else():
  some = make("project_out")
  once_BTD = apply(some)
  for b, t in np.argwhere(MASK_BT):
    left_R = BASES_NRD[ROW_B[b]] @ once_BTD[b, t]
    np.testing.assert_allclose(left_R, 0, atol=10 * ATOL)
  np.testing.assert_allclose(apply(some, once_BTD), once_BTD, atol=ATOL)
  nothing = edits.project_out(HOOK, np.zeros((N, 2, D)))
  np.testing.assert_array_equal(apply(nothing), H_BTD)


def test_a_share_of_a_projection_is_taken_away():
  share_N = np.asarray([0, 0.5, 1, 2], "f4")
  part = edits.project_out(HOOK, BASES_NRD, fractions_N=share_N)
  whole_BTD = H_BTD - apply(make("project_out"))
  expected_BTD = H_BTD - share_N[ROW_B][:, None, None] * whole_BTD
  np.testing.assert_allclose(apply(part), expected_BTD, atol=3 * ATOL)


def test_clamping_to_the_activation_itself_changes_nothing():
  """And a latent that is not among the top k counts as 0."""
  a_F = activations(H_BTD[0, 0])
  on, off = int(a_F.argmax()), int(a_F.argmin())
  assert a_F[on] > 1 and a_F[off] == 0
  some = edits.clamp(
    HOOK,
    steered_models.dictionary(),
    np.asarray([[on, off]] * N),
    np.asarray([[a_F[on], 0]] * N),
  )
  np.testing.assert_allclose(apply(some)[0, 0], H_BTD[0, 0], atol=ATOL)


@pytest.mark.parametrize(
  "sizes", [pytest.param((1, 8, 1), marks=pytest.mark.slow), (1, 2, 4)]
)
def test_latents_on_several_devices_are_clamped_alike(sizes):
  # Three sequences do not divide over the devices.
  sae, data, latent = sizes
  mesh = mesh_lib.make(mesh_lib.MeshConfig(sae=sae, data=data, latent=latent))
  model = steered_models.pair("llama").load()
  placed = make("clamp").on(dataclasses.replace(model, mesh=mesh))
  (part,) = placed.parts
  w_FD = part.shared[0].dictionary.params.w_enc_FD
  assert len(w_FD.sharding.device_set) == 8
  np.testing.assert_allclose(apply(placed), apply(make("clamp")), atol=ATOL)


def test_changes_at_several_hooks_equal_torch_with_hooks():
  pair = steered_models.pair("llama")
  kinds = ("add", "project_out", "clamp")
  hooks = [f"blocks.{i}.hook_resid_post" for i in range(3)]
  both = edits.combine(
    *(make(kind, "all", hook) for kind, hook in zip(kinds, hooks, strict=True))
  )
  assert both.hooks == tuple(hooks)
  tokens_BT = _rng.integers(1, steered_models.VOCAB, (B, T))
  ours = lm.logits(
    pair.load(), tokens_BT, MASK_BT, edits=both.lm_edits(ROW_B, END_B)
  )
  n = [0]

  def hook(kind):
    def change(module, args, output):
      rows = [ORACLES[kind](x_D, n[0]) for x_D in output[0].numpy()]
      return torch.from_numpy(np.asarray(rows, np.float32))[None]

    return change

  handles = [
    block.register_forward_hook(hook(kind))
    for block, kind in zip(pair.blocks(), kinds, strict=False)
  ]
  for b in range(B):
    n[0] = ROW_B[b]
    with torch.no_grad():
      logits = pair.torch(torch.from_numpy(tokens_BT[b : b + 1])).logits[0]
    theirs = logits.numpy()[: LENGTH_B[b]]
    # As in tests/lm: 4 * sqrt(8 products * 128 terms) * eps of the largest.
    atol = 4 * (8 * 128) ** 0.5 * 1.2e-7 * np.abs(theirs).max()
    np.testing.assert_allclose(
      np.asarray(ours)[b, : LENGTH_B[b]], theirs, atol=atol
    )
  for handle in handles:
    handle.remove()


def test_parts_are_applied_in_order_and_rows_are_taken_together():
  add, project = make("add"), make("project_out")
  first = apply(edits.combine(add, project))
  np.testing.assert_allclose(first, apply(project, apply(add)), atol=ATOL)
  assert np.abs(first - apply(edits.combine(project, add))).max() > 0.1
  taken = edits.combine(add, project).take([3, 0, 0, 1, 2])
  assert taken.n == 5
  np.testing.assert_array_equal(taken.parts[0].rows[0][0], VECTORS_ND[3])
  assert edits.none(3).lm_edits(ROW_B) == ()
  assert edits.combine(edits.none(N), make("add", "prompt")).where == "prompt"


def test_a_stream_in_bfloat16_is_rounded_once():
  h_BTD = jnp.asarray(H_BTD, jnp.bfloat16)
  (edit,) = make("add").lm_edits(ROW_B, END_B)
  found = edit.fn(h_BTD, MASK_BT, *edit.args).astype(jnp.bfloat16)
  exact = np.asarray(h_BTD, np.float32) + VECTORS_ND[ROW_B][:, None]
  expected = np.where(
    MASK_BT[..., None], np.asarray(jnp.asarray(exact, jnp.bfloat16)), h_BTD
  )
  np.testing.assert_array_equal(np.asarray(found), expected)


def _clamp(latents, values):
  return edits.clamp(HOOK, steered_models.dictionary(), latents, values)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: edits.add("blocks.x", VECTORS_ND), "is unknown"),
    (lambda: edits.add(HOOK, VECTORS_ND, "answer"), "where='answer'"),
    (lambda: edits.add(HOOK, VECTORS_ND[0]), "give 2 axes"),
    (lambda: edits.add(HOOK, VECTORS_ND[:0]), "none of them empty"),
    (
      lambda: edits.add(HOOK, np.full((2, D), np.nan)),
      "intervention 0 is not finite",
    ),
    (lambda: edits.project_out(HOOK, VECTORS_ND), "give 3 axes"),
    (
      lambda: edits.project_out(HOOK, BASES_NRD, fractions_N=np.ones(2)),
      "2 fractions for 4 subspaces",
    ),
    (lambda: _clamp([[64]], [[0.0]]), "latent 64 does not exist"),
    (lambda: _clamp([[-2]], [[0.0]]), "latent -2 does not exist"),
    (lambda: _clamp([[1.0]], [[0.0]]), "give integers"),
    (lambda: _clamp([[1, 2]], [[0.0]]), "have to be the same"),
    (
      lambda: _clamp([[1, 2], [7, 7]], [[0.0, 1], [0, 1]]),
      "intervention 1 clamps latent 7 twice",
    ),
    (
      lambda: edits.combine(make("add"), edits.none(2)),
      "sets of 2, 4 interventions",
    ),
    (
      lambda: edits.combine(make("add"), make("add", "prompt")),
      "on all and prompt tokens",
    ),
    (lambda: edits.combine(), "sets of no interventions"),
    (lambda: edits.none(0), "give at least 1"),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(errors.InputError, match=message):
    call()


def test_interventions_have_to_fit_the_model():
  model = steered_models.pair("llama").load()
  with pytest.raises(errors.InputError, match=r"width 8 .* is 32 wide"):
    edits.add(HOOK, np.ones((1, 8))).on(model)
  with pytest.raises(errors.InputError, match="layers are 0 to 3"):
    edits.add("blocks.9.hook_resid_post", VECTORS_ND).on(model)
