# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Every family against transformers on torch."""

import dataclasses

import jax
import jax.numpy as jnp
import lm_cases
import numpy as np
import pytest
import torch

from sae_jax import lm as lm_lib
from sae_jax import mesh as mesh_lib
from sae_jax.lm import source, weights

# A residual is the sum of up to 2 * 4 products over at most 128 elements, each
# off by sqrt(128) * eps of its size at random: sqrt(8 * 128) * eps = 4e-6, of
# the largest entry; norms and the softmax amplify it by a few.
RTOL = 4 * (8 * 128) ** 0.5 * 1.2e-7

LEFT_PADDING = (0, 7, 20)
T = 40

_forward = jax.jit(lm_lib.forward, static_argnames="taps")


def _batch():
  generator = torch.Generator().manual_seed(1)
  tokens = torch.randint(0, 208, (3, T), generator=generator)
  mask = torch.ones(3, T, dtype=torch.long)
  for row, padding in enumerate(LEFT_PADDING):
    mask[row, :padding] = 0
  return tokens, mask


def _torch_forward(model, tokens, mask):
  with torch.no_grad():
    return model(
      tokens,
      attention_mask=mask,
      position_ids=(mask.cumsum(1) - 1).clamp(min=0),
      output_hidden_states=True,
      use_cache=False,
    )


def _close(ours, theirs, valid):
  ours, theirs = np.asarray(ours)[valid], theirs.numpy()[valid]
  return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("name", lm_cases.CASES)
def test_family_equals_transformers(hf_pair, name):
  pair = hf_pair(name)
  lm = pair.load()
  tokens, mask = _batch()
  theirs = _torch_forward(pair.torch, tokens, mask)
  valid = mask.numpy().astype(bool)
  n = lm.config.num_layers

  # transformers' last hidden state is after the final norm, so the stream
  # before every block is compared, and the logits stand for the end.
  hooks = tuple(f"blocks.{layer}.hook_resid_pre" for layer in range(n))
  out = _forward(lm.model, tokens.numpy(), valid, taps=hooks)
  for layer, hook in enumerate(hooks):
    error = _close(out.taps[hook], theirs.hidden_states[layer], valid)
    assert error < RTOL, hook
  assert _close(out.logits_BTV, theirs.logits, valid) < RTOL


# One of each kind of attention, position and norm; the others are slow tests.
_QUICK = ("mistral", "qwen3", "gemma2", "gemma3", "gpt2", "pythia")


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in _QUICK else pytest.mark.slow)
    for name in lm_cases.CASES
  ],
)
def test_cached_greedy_search_equals_transformers(hf_pair, name):
  pair = hf_pair(name)
  tokens = _batch()[0]
  prompts = [
    row[:length].tolist()
    for row, length in zip(tokens, (12, 9, 7), strict=True)
  ]
  ours = lm_lib.generate_tokens(
    pair.load(), prompts, max_new_tokens=20, stop_tokens=()
  )
  _assert_greedy(pair.torch, prompts, ours)


def _assert_greedy(model, prompts, continuations):
  """Every new token is torch's likeliest one after what stands before it.

  By induction that is what a greedy search of torch would have found.
  """
  rows = [p + c for p, c in zip(prompts, continuations, strict=True)]
  longest = max(map(len, rows))
  tokens = torch.tensor([[0] * (longest - len(r)) + r for r in rows])
  mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows])
  best = _torch_forward(model, tokens, mask).logits.argmax(-1)
  for row, continuation in zip(best.tolist(), continuations, strict=True):
    assert len(continuation) == 20
    assert row[-21:-1] == continuation


@pytest.mark.parametrize(
  ("name", "change"),
  [
    ("gemma2", dict(attention_softcap=0.0)),
    ("gemma2", dict(logit_softcap=0.0)),
    ("gemma2", dict(sliding_layers=(False,) * 3)),
    ("gemma2", dict(attention_scale=32**-0.5)),
    ("gemma3", dict(rope_frequencies_local=())),
    ("llama-rope3", dict(rope_frequencies=())),
    ("qwen2-window", dict(sliding_layers=(True,) * 3)),
  ],
  ids=lambda x: x if isinstance(x, str) else next(iter(x)),
)
def test_every_switch_matters(hf_pair, name, change):
  """The models above would notice if a switch of the config were lost."""
  pair = hf_pair(name)
  lm = pair.load()
  tokens, mask = _batch()
  theirs = _torch_forward(pair.torch, tokens, mask).logits
  if change.get("rope_frequencies_local") == ():
    change = dict(rope_frequencies_local=lm.config.rope_frequencies)
  if change.get("rope_frequencies") == ():
    plain = tuple((10000.0 ** (-np.arange(0, 16, 2) / 16)).tolist())
    change = dict(rope_frequencies=plain, rope_frequencies_local=plain)
  config = dataclasses.replace(lm.config, **change)
  decoder = weights.load_decoder(
    config,
    source.SafetensorsSource(pair.path),
    mesh_lib.single(),
    jnp.dtype("float32"),
    place="",
  )
  valid = mask.numpy().astype(bool)
  out = _forward(decoder, tokens.numpy(), valid)
  assert _close(out.logits_BTV, theirs, valid) > 100 * RTOL
