# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers under interventions, and the unit that their strengths are in."""

import dataclasses

import numpy as np
import pytest
import steered_models
import torch

from sae_jax import errors, lm
from sae_jax import mesh as mesh_lib
from sae_jax.intervene import edits, norms, sampling
from sae_jax.posttrain import persona_tokenizer

pytestmark = pytest.mark.usefixtures("quick_compilation")

HOOK = "blocks.1.hook_resid_post"
N, NEW = 3, 6
PROMPTS = [[5, 6, 7, 8, 9], [80, 3], [17, 18, 19]]
VECTORS_ND = 6 * np.random.default_rng(3).normal(size=(N, steered_models.D))


@pytest.fixture(scope="module")
def model():
  return steered_models.pair("llama").load()


def _sample(model, interventions, **kwargs):
  return sampling.sample(
    model,
    PROMPTS,
    interventions,
    **{"max_new_tokens": NEW, "batch_rows": 4, **kwargs},
  )


@pytest.mark.parametrize("where", ["all", "prompt", "response"])
def test_greedy_answers_equal_torch_without_a_cache(model, where):
  pair = steered_models.pair("llama")
  answers = _sample(model, edits.add(HOOK, VECTORS_ND, where), temperature=0)
  vector_D, of_prompt = [None], [0]

  def hook(module, args, output):
    """Adds to the tokens of the scope, all of which are computed anew."""
    scope_T = np.arange(output.shape[1]) < of_prompt[0]
    scope_T = {"all": scope_T | True, "prompt": scope_T}.get(where, ~scope_T)
    added_TD = np.outer(scope_T, vector_D[0]).astype(np.float32)
    return output + torch.from_numpy(added_TD)

  handle = pair.blocks()[1].register_forward_hook(hook)
  for n in range(N):
    vector_D[0] = VECTORS_ND[n]
    for prompt, (answer,) in zip(PROMPTS, answers[n], strict=True):
      of_prompt[0] = len(prompt)
      with torch.no_grad():
        tokens = torch.tensor([prompt + answer])
        best_T = pair.torch(tokens).logits.argmax(-1)[0].tolist()
      assert best_T[len(prompt) - 1 : -1] == answer
      ended = best_T[-1] in model.config.eos_ids
      assert len(answer) == NEW or ended
  handle.remove()
  # Each intervention says something else, or this shows nothing.
  assert len({str(some) for some in answers}) == N


@pytest.mark.slow
def test_interventions_draw_the_same_random_numbers(model):
  vectors_ND = VECTORS_ND.copy()
  vectors_ND[[0, 2]] = 0
  done = []
  answers = _sample(
    model,
    edits.add(HOOK, vectors_ND),
    samples=2,
    progress=done.append,
  )
  assert answers[0] == answers[2] != answers[1]
  assert answers[0][0][0] != answers[0][0][1]
  assert done[-1] == N * len(PROMPTS) * 2 and done == sorted(done)
  # Neither the batch nor further samples change those that are there.
  more = _sample(model, edits.none(1), samples=3, batch_rows=5, temperature=1.0)
  assert [some[:2] for some in more[0]] == answers[0]
  assert more != _sample(model, edits.none(1), samples=3, seed=1)


@pytest.mark.slow
def test_a_mesh_changes_nothing(model):
  mesh = mesh_lib.make(mesh_lib.MeshConfig(data=2, latent=4))
  many = steered_models.pair("llama").load(mesh=mesh)
  some = edits.combine(
    edits.add(HOOK, VECTORS_ND),
    edits.clamp(
      "blocks.2.hook_resid_pre",
      steered_models.dictionary(),
      np.arange(N)[:, None],
      np.full((N, 1), 5.0),
    ),
  )
  kwargs = dict(temperature=0, batch_rows=8)
  assert _sample(many, some, **kwargs) == _sample(model, some, **kwargs)


@pytest.mark.parametrize(
  ("prompts", "kwargs", "message"),
  [
    ([], {}, "no prompts"),
    ([[1], []], {}, "prompt 1 has no tokens"),
    ([[1]], dict(samples=0), "samples=0"),
    ([[1]], dict(batch_rows=0), "batch_rows=0"),
    ([[1]], dict(temperature=-1.0), "temperature=-1.0"),
  ],
)
def test_mistakes_are_named(model, prompts, kwargs, message):
  with pytest.raises(errors.InputError, match=message):
    sampling.sample(
      model, prompts, edits.none(1), **{"max_new_tokens": 1, **kwargs}
    )


def test_draws_are_one_per_prompt(model):
  with pytest.raises(errors.InputError, match="1 draws for 3 prompts"):
    lm.generate_tokens(model, PROMPTS, max_new_tokens=1, draws=[0])


def test_the_median_norm_leaves_out_first_and_special_tokens(model, tmp_path):
  tokenizer = persona_tokenizer.make(128)
  tokenizer.fast.save_pretrained(tmp_path)
  model = dataclasses.replace(model, path=tmp_path)
  bos = tokenizer.bos_id
  sequences = [[4, 5, 6], [bos, 9, bos, 11, 12], [7], [20, 21, 22, 23]]
  found = norms.median_norm(model, sequences, HOOK, batch_size=3)
  tokens_BT = np.asarray([row + [0] * (5 - len(row)) for row in sequences])
  mask_BT = np.arange(5)[None, :] < [[len(row)] for row in sequences]
  h_BTD = lm.activations(model, tokens_BT, HOOK, mask_BT)[HOOK]
  norm_BT = np.linalg.norm(np.asarray(h_BTD), axis=-1)
  kept = [
    norm_BT[b, t]
    for b, row in enumerate(sequences)
    for t in range(1, len(row))
    if row[t] != bos
  ]
  assert len(kept) == 8
  assert found == pytest.approx(np.median(kept), rel=1e-5)
  with pytest.raises(errors.InputError, match="no token but first and special"):
    norms.median_norm(model, [[4], [5, bos]], HOOK)
