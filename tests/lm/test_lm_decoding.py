# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Generation, log-probabilities of completions, and both on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sae_jax import errors
from sae_jax import lm as lm_lib
from sae_jax import mesh as mesh_lib
from sae_jax.lm import score

# As derived in test_lm_families.py, relative to the largest entry.
RTOL = 4 * (8 * 128) ** 0.5 * 1.2e-7

PROMPTS = [[5, 6, 7, 8, 9], [100, 3], [17, 18, 19]]
COMPLETIONS = [[50, 51], [60, 61, 62, 63], []]


def shift(h_BTD, mask_BT, vector_D):
  return h_BTD + vector_D[None, None]


def _generate(lm, prompts=PROMPTS, **kwargs):
  return lm_lib.generate_tokens(
    lm, prompts, **{"max_new_tokens": 12, "stop_tokens": (), **kwargs}
  )


def test_edited_generation_equals_torch_with_a_hook(hf_pair):
  pair = hf_pair("llama")
  vector = np.random.default_rng(1).normal(size=64).astype(np.float32)
  edit = lm_lib.Edit("blocks.1.hook_resid_post", shift, (vector,))
  lm = pair.load()
  ours = _generate(lm, edits=[edit])
  assert ours != _generate(lm)
  handle = pair.torch.model.layers[1].register_forward_hook(
    lambda module, args, output: output + torch.from_numpy(vector)
  )
  for prompt, new in zip(PROMPTS, ours, strict=True):
    with torch.no_grad():
      best = pair.torch(torch.tensor([prompt + new])).logits.argmax(-1)[0]
    assert best[len(prompt) - 1 : -1].tolist() == new
  handle.remove()


def test_samples_depend_on_seed_and_prompt_alone(hf_pair):
  lm = hf_pair("llama").load()
  sample = _generate(lm, temperature=1.0, seed=3)
  assert sample == _generate(lm, temperature=1.0, seed=3)
  assert sample == _generate(lm, temperature=1.0, seed=3, batch_size=2)
  assert sample != _generate(lm, temperature=1.0, seed=4)
  same_prompt = _generate(lm, [[5, 6]] * 3, temperature=1.0)
  assert same_prompt[0] != same_prompt[1]


def test_samples_follow_the_softmax(hf_pair):
  lm = hf_pair("llama").load()
  prompt, temperature, n = [5, 6, 7], 0.3, 512
  drawn = _generate(
    lm,
    [prompt] * n,
    max_new_tokens=1,
    temperature=temperature,
    batch_size=n,
  )
  logits_V = np.asarray(lm_lib.logits(lm, np.asarray([prompt])))[0, -1]
  p_V = np.asarray(jax.nn.softmax(logits_V / temperature))
  # The mean logit of n draws is within 5 of its standard errors; at another
  # temperature it moves by Var(logit) * (1 / t - 1 / t').
  mean = np.sum(p_V * logits_V)
  spread = np.sqrt(np.sum(p_V * (logits_V - mean) ** 2))
  assert abs(logits_V[np.ravel(drawn)].mean() - mean) < 5 * spread / n**0.5
  # And every word comes up about as often as it should.
  counts_V = np.bincount(np.ravel(drawn), minlength=208)
  sigma_V = np.sqrt(n * p_V * (1 - p_V))
  assert (np.abs(counts_V - n * p_V) < 6 * sigma_V + 3).all()


def test_generation_stops_at_stop_tokens(hf_pair):
  lm = hf_pair("llama").load()
  free = _generate(lm)
  stop = free[0][4]
  stopped = _generate(lm, stop_tokens=[stop])
  for a, b in zip(free, stopped, strict=True):
    assert b == (a[: a.index(stop)] if stop in a else a)
  # The family's end-of-sequence id is what stops it otherwise.
  assert lm.config.eos_ids == (2,)


def test_completion_logprobs_equal_torch(hf_pair, monkeypatch):
  pair = hf_pair("gemma2")
  monkeypatch.setattr(score, "_POSITIONS_AT_ONCE", 12)
  ours = lm_lib.completion_logprobs(
    pair.load(), PROMPTS, COMPLETIONS, batch_size=2
  )
  for prompt, completion, logp in zip(PROMPTS, COMPLETIONS, ours, strict=True):
    assert logp.shape == (len(completion),) and logp.dtype == np.float32
    with torch.no_grad():
      logits = pair.torch(torch.tensor([prompt + completion])).logits[0]
    theirs = (
      logits.log_softmax(-1)[
        range(len(prompt) - 1, len(logits) - 1),
        torch.tensor(completion, dtype=torch.long),
      ]
      if completion
      else torch.zeros(0)
    )
    np.testing.assert_allclose(logp, theirs.numpy(), atol=RTOL * 10)


def test_token_logprobs_score_no_padding(hf_pair):
  lm = hf_pair("llama").load()
  tokens = np.asarray([PROMPTS[0], [0, 0, *PROMPTS[2]]])
  mask = np.asarray([[True] * 5, [False] * 2 + [True] * 3])
  logp = np.asarray(jax.jit(lm_lib.token_logprobs)(lm.model, tokens, mask))
  assert (logp[:, 0] == 0).all() and (logp[1, :3] == 0).all()
  assert (logp[0, 1:] < 0).all() and (logp[1, 3:] < 0).all()


@pytest.mark.parametrize(
  ("sizes", "kv_spec"),
  [
    pytest.param((1, 4, 2), "latent", marks=pytest.mark.slow),
    ((2, 1, 4), None),
  ],
  ids=["heads-split", "kv-heads-replicated"],
)
def test_a_mesh_changes_nothing(hf_pair, sizes, kv_spec):
  pair = hf_pair("llama")
  sae, data, latent = sizes
  mesh = mesh_lib.make(mesh_lib.MeshConfig(sae=sae, data=data, latent=latent))
  one, many = pair.load(), pair.load(mesh=mesh)
  attention = many.model.blocks.attention
  for weight, spec in (
    (attention.w_q_NHD[...], jax.P(None, "latent")),
    (attention.w_k_KHD[...], jax.P(None, kv_spec)),
    (many.embed_VD, jax.P("latent")),
  ):
    expected = jax.NamedSharding(mesh, spec)
    assert weight.sharding.is_equivalent_to(expected, weight.ndim)

  tokens = np.random.default_rng(0).integers(0, 208, (4, 10))
  hook = "blocks.1.hook_resid_post"
  a = lm_lib.activations(one, tokens, hook)[hook]
  b = lm_lib.activations(many, tokens, hook)[hook]
  batch = jax.NamedSharding(mesh, jax.P(("sae", "data")))
  assert b.sharding.is_equivalent_to(batch, 3)
  scale = np.abs(np.asarray(a)).max()
  np.testing.assert_allclose(np.asarray(b), np.asarray(a), atol=RTOL * scale)
  logits = lm_lib.logits(many, tokens)
  assert logits.sharding.is_equivalent_to(batch, 3)
  np.testing.assert_allclose(
    np.asarray(logits), np.asarray(lm_lib.logits(one, tokens)), atol=1e-4
  )
  # Three prompts do not divide over the devices, and still run.
  vector = np.random.default_rng(1).normal(size=64).astype(np.float32)
  edit = lm_lib.Edit("blocks.1.hook_resid_post", shift, (vector,))
  assert _generate(one, edits=[edit]) == _generate(many, edits=[edit])
  for x, y in zip(
    lm_lib.completion_logprobs(one, PROMPTS, COMPLETIONS),
    lm_lib.completion_logprobs(many, PROMPTS, COMPLETIONS),
    strict=True,
  ):
    np.testing.assert_allclose(x, y, atol=1e-4)


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    (dict(max_new_tokens=0), "max_new_tokens=0"),
    (dict(temperature=-1.0), "temperature=-1.0"),
    (dict(temperature=float("nan")), "temperature=nan"),
    (dict(prompts=[[1], []]), "prompt 1 has no tokens"),
    (dict(prompts="one"), "one string"),
    (dict(prompts=[[300]]), "ids 0 to 207"),
  ],
)
def test_mistakes_are_named(hf_pair, kwargs, message):
  with pytest.raises(errors.InputError, match=message):
    _generate(hf_pair("llama").load(), **kwargs)


def test_a_prompt_may_not_outgrow_the_position_table(hf_pair):
  with pytest.raises(errors.InputError, match="68 positions"):
    _generate(hf_pair("gpt2").load(), [[1] * 56])


def test_prompts_and_completions_have_to_match(hf_pair):
  with pytest.raises(errors.InputError, match="3 prompts and 1 completions"):
    lm_lib.completion_logprobs(hf_pair("llama").load(), PROMPTS, [[1]])


def test_no_prompts_give_nothing(hf_pair):
  lm = hf_pair("llama").load()
  assert _generate(lm, []) == []
  assert lm_lib.completion_logprobs(lm, [], []) == []


def test_bfloat16_generates(hf_pair):
  lm = hf_pair("gemma2").load(dtype=jnp.bfloat16)
  new = _generate(lm)
  assert [len(tokens) for tokens in new] == [12, 12, 12]
