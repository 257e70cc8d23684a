# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Passes that begin at a stream, and sequences with branches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors
from sae_jax import lm as lm_lib
from sae_jax.lm import attention, low_rank

# As derived in test_lm_families.py, relative to the largest entry.
RTOL = 4 * (8 * 128) ** 0.5 * 1.2e-7

TOKENS_BT = np.random.default_rng(0).integers(0, 208, (2, 12))
MASK_BT = np.arange(12)[None, :] < np.asarray([[12], [9]])

_forward = jax.jit(lm_lib.forward, static_argnames=("taps", "want_logits"))


def double(h_BTD, mask_BT):
  return h_BTD * 2


def shift(h_BTD, mask_BT, vector_D):
  return h_BTD + vector_D[None, None]


def _close(a, b, mask_BT=MASK_BT):
  a, b = np.asarray(a)[mask_BT], np.asarray(b)[mask_BT]
  np.testing.assert_allclose(a, b, rtol=0, atol=RTOL * np.abs(b).max())


@pytest.mark.parametrize(
  ("name", "hook"),
  [
    ("llama", "blocks.1.hook_resid_post"),
    pytest.param("gemma2", "blocks.1.hook_resid_pre", marks=pytest.mark.slow),
    pytest.param("gpt2", "blocks.0.hook_resid_pre", marks=pytest.mark.slow),
  ],
)
def test_a_pass_from_a_stream_is_the_rest_of_a_whole_one(hf_pair, name, hook):
  model = hf_pair(name).load().model
  above = "blocks.2.hook_attn_out"
  edits = (
    lm_lib.Edit(hook, double),
    lm_lib.Edit(above, shift, (jnp.ones(64),)),
    lm_lib.Edit(hook, shift, (jnp.ones(64),)),
  )
  stream = _forward(
    model, TOKENS_BT, MASK_BT, taps=(hook,), want_logits=False
  ).taps[hook]
  whole = _forward(model, TOKENS_BT, MASK_BT, taps=(hook, above), edits=edits)
  rest = _forward(
    model,
    # No token but their number is read.
    np.zeros_like(TOKENS_BT),
    MASK_BT,
    taps=(hook, above),
    edits=edits,
    entry=lm_lib.Entry(hook, stream),
  )
  _close(rest.logits_BTV, whole.logits_BTV)
  # A tap where the pass begins sees that hook's own edits, in their order.
  _close(rest.taps[hook], whole.taps[hook])
  _close(rest.taps[above], whole.taps[above])
  _close(rest.taps[hook], 2 * stream + 1)


def test_blocks_below_the_entry_are_not_run(hf_pair):
  model = hf_pair("llama").load().model
  hook, end = "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"
  clean = _forward(
    model, TOKENS_BT, MASK_BT, taps=(hook, end), want_logits=False
  )
  broken = jax.tree.map(
    lambda x: x.at[:2].set(jnp.nan) if x.ndim and len(x) == 3 else x, model
  )
  entry = lm_lib.Entry(hook, clean.taps[hook])
  rest = _forward(
    broken, TOKENS_BT, MASK_BT, taps=(end,), want_logits=False, entry=entry
  )
  _close(rest.taps[end], clean.taps[end])
  # Where the only tap is the entry, nothing is run at all.
  nothing = _forward(
    broken, TOKENS_BT, MASK_BT, taps=(hook,), want_logits=False, entry=entry
  )
  np.testing.assert_array_equal(nothing.taps[hook], clean.taps[hook])


@pytest.mark.slow
def test_an_adapter_corrects_the_blocks_after_the_entry(hf_pair):
  lm = hf_pair("llama").load()
  rng = np.random.default_rng(1)
  path = "attention.w_q_NHD"
  adapter = low_rank.Adapter(
    a={path: jnp.asarray(rng.normal(size=(2, 3, 64)), jnp.float32) / 8},
    b={path: jnp.asarray(rng.normal(size=(2, 4, 16, 3)), jnp.float32)},
    first=1,
    scale=1.0,
  )
  hook = "blocks.1.hook_resid_post"
  run = functools.partial(_forward, lm.model, TOKENS_BT, MASK_BT)
  whole = run(taps=(hook,), adapter=adapter)
  entry = lm_lib.Entry(hook, whole.taps[hook])
  rest = run(entry=entry, adapter=adapter)
  _close(rest.logits_BTV, whole.logits_BTV)
  plain = run(entry=entry).logits_BTV
  assert np.abs(np.asarray(plain - whole.logits_BTV)[MASK_BT]).max() > 0.01


@pytest.mark.parametrize(
  ("start", "stop", "expected"),
  [
    (0, 6, [(0, 2, None), (2, 5, (2, 5)), (5, 6, None)]),
    (3, 6, [(3, 5, (3, 5)), (5, 6, None)]),
    (0, 3, [(0, 2, None), (2, 3, (2, 3))]),
    (5, 6, [(5, 6, None)]),
    (1, 2, [(1, 2, None)]),
    (4, 4, []),
  ],
)
def test_blocks_are_split_where_corrections_begin_and_end(
  start, stop, expected
):
  rows = np.arange(2, 5, dtype=np.float32)[:, None, None]
  adapter = low_rank.Adapter(
    a={"x": jnp.asarray(rows)}, b={"x": jnp.asarray(rows)}, first=2, scale=1.0
  )
  found = [
    (
      layers[0],
      layers[-1] + 1,
      part and (int(part.a["x"][0, 0, 0]), int(part.a["x"][-1, 0, 0]) + 1),
    )
    for layers, part in low_rank.segments(adapter, start, stop)
  ]
  assert found == expected


@pytest.mark.parametrize(
  ("entry", "kwargs", "message"),
  [
    ("blocks.1.hook_mlp_out", {}, "begins between blocks"),
    ("blocks.3.hook_resid_pre", {}, "layers are 0 to 2"),
    (
      "blocks.1.hook_resid_post",
      dict(taps=("blocks.1.hook_mlp_out",)),
      "lies before 'blocks.1.hook_resid_post'",
    ),
    (
      "blocks.1.hook_resid_pre",
      dict(edits=(lm_lib.Edit("blocks.0.hook_resid_post", double),)),
      "lies before 'blocks.1.hook_resid_pre'",
    ),
    ("blocks.1.hook_resid_pre", dict(short=True), "a stream of shape"),
  ],
)
def test_entries_that_cannot_be_are_named(hf_pair, entry, kwargs, message):
  model = hf_pair("llama").load().model
  short = kwargs.pop("short", False)
  stream = jnp.zeros((2, 11 if short else 12, 64))
  with pytest.raises(errors.InputError, match=message):
    lm_lib.forward(
      model,
      jnp.asarray(TOKENS_BT),
      entry=lm_lib.Entry(entry, stream),
      **kwargs,
    )


@pytest.mark.parametrize(
  "name", ["gemma2", pytest.param("gpt2", marks=pytest.mark.slow)]
)
def test_branches_are_continuations_of_their_own(hf_pair, name, monkeypatch):
  # gemma2's window of 8 is shorter than the texts, and gpt2 looks positions up.
  model = hf_pair(name).load().model
  rng = np.random.default_rng(2)
  trunk, a, b = (rng.integers(0, 208, n).tolist() for n in (6, 7, 4))
  tokens = np.asarray([trunk + a + b + [0, 0]])
  branch = np.asarray([[0] * 6 + [1] * 7 + [2] * 4 + [0, 0]])
  mask = np.arange(19)[None, :] < 17
  packed = _forward(model, tokens, mask, branch_BT=branch).logits_BTV[0]
  alone = _forward(
    model,
    np.asarray([trunk + a, trunk + b + [0, 0, 0]]),
    np.arange(13)[None, :] < np.asarray([[13], [10]]),
  ).logits_BTV
  everything = np.s_[:]
  _close(packed[:13], alone[0], everything)
  _close(packed[13:17], alone[1, 6:10], everything)
  # The same where long texts are attended to by blocks of queries.
  monkeypatch.setattr(attention, "_QUERIES_AT_ONCE", 4)
  monkeypatch.setattr(attention, "_QUERY_BLOCK", 3)
  blocked = jax.jit(
    lambda *xs: lm_lib.forward(*xs, branch_BT=jnp.asarray(branch))
  )(model, tokens, mask)
  _close(blocked.logits_BTV[0, :17], packed[:17], everything)
