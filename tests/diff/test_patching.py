# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Patched models are those of Hugging Face's code with the stream replaced."""

import dataclasses

import jax.numpy as jnp
import live_problem
import numpy as np
import pytest
import torch
from live_problem import place, quick
from scipy import special

from sae_jax import sae
from sae_jax.diff import config, patching

__all__ = ["place", "quick"]  # fixtures

D, F = live_problem.diff_models.D, 24
CLOSE = 3e-6  # log-probabilities up to 10, some 5 roundings of 6e-8 each


def crosscoder():
  rng = np.random.default_rng(0)
  w_FD = rng.normal(size=(F, 2 * D)).astype(np.float32) / 16
  params = sae.Params(
    jnp.asarray(w_FD),
    jnp.asarray(w_FD[::-1] + 0.1 * w_FD),
    jnp.zeros(F),
    jnp.asarray(rng.normal(size=2 * D) / 10, jnp.float32),
  )
  return sae.make_sae(params, 6, sources=2)


def codes(found, x_TD):
  """TopK in float64."""
  p = found.params
  pre_TF = (x_TD - np.asarray(p.b_dec_D, np.float64)) @ np.asarray(
    p.w_enc_FD, np.float64
  ).T
  kth_T1 = np.sort(pre_TF, axis=1)[:, -found.k, None]
  return np.where(pre_TF >= kth_T1, pre_TF.clip(0), 0)


class Twin(live_problem.Torch):
  def hidden(self, tokens):
    kept = []
    handle = self.layer.register_forward_hook(
      lambda m, a, out: kept.append(out[0] if isinstance(out, tuple) else out)
    )
    clean = self.log_softmax(tokens)
    handle.remove()
    return kept[0].reshape(len(tokens), -1).numpy(), clean

  def patched(self, tokens, h_TD):
    def replace(module, arguments, out):
      new = torch.tensor(h_TD)[None] if out_is_3d(out) else torch.tensor(h_TD)
      return (new, *out[1:]) if isinstance(out, tuple) else new

    handle = self.layer.register_forward_hook(replace)
    found = self.log_softmax(tokens)
    handle.remove()
    return found


def out_is_3d(out):
  return (out[0] if isinstance(out, tuple) else out).ndim == 3


def reference(problem, found, keep_F):
  """KL of every token in scope, in float64."""
  base, tuned = (Twin(problem.models.source(n)) for n in ("base", "bad"))
  dec_F2D = np.asarray(found.params.w_dec_FD, np.float64).reshape(-1, 2, D)
  kl = []
  for sequence in problem.prompts.sequences(problem.config.scope):
    tokens = list(sequence.tokens)
    base_TD, _ = base.hidden(tokens)
    own_TD, clean_TV = tuned.hidden(tokens)
    f_TF = codes(found, np.concatenate([base_TD, own_TD], axis=1)) * keep_F
    h_TD = base_TD + f_TF @ (dec_F2D[:, 1] - dec_F2D[:, 0])
    skip = problem.config.skip_positions
    h_TD[:skip] = own_TD[:skip]
    start, stop = sequence.span(problem.config.scope)
    at = slice(max(start, skip), stop)
    log_q_TV = tuned.patched(tokens, h_TD)[at]
    p_TV = np.exp(clean_TV[at])
    kl += special.kl_div(p_TV, np.exp(log_q_TV)).sum(1).tolist()
  return np.array(kl)


@pytest.mark.slow
def test_divergences_are_those_of_replaced_streams(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path, (1, 2, 2), scope="all")
  made = crosscoder()
  some_F = np.arange(F) % 3 == 0
  sets = {"some": some_F, "every": np.ones(F, bool)}
  found = patching.measure(problem, "bad", made, sets)
  nothing_N = reference(problem, made, np.zeros(F))
  assert found["tokens"] == len(nothing_N)
  assert found["kl"] == pytest.approx(nothing_N.mean(), abs=CLOSE)
  for name, keep_F in sets.items():
    row = found["sets"][name]
    kl_N = reference(problem, made, keep_F)
    assert row["latents"] == keep_F.sum()
    assert row["kl"] == pytest.approx(kl_N.mean(), abs=CLOSE)
    wanted = 1 - kl_N.mean() / nothing_N.mean()
    error = CLOSE * (1 + abs(1 - wanted)) / nothing_N.mean()
    assert row["recovered"] == pytest.approx(wanted, abs=error)
    assert row["low"] < row["recovered"] < row["high"]
  # Kept for a diff that goes on: the models are not run again.
  again = dataclasses.replace(problem, models=None)
  assert patching.measure(again, "bad", made, sets) == found


def test_what_cannot_be_run_is_said(place, tmp_path):
  problem = live_problem.open_problem(place, tmp_path, scope="all")
  assert patching.unavailable(problem, "bad") == ""
  none = dataclasses.replace(problem, prompts=None)
  assert "no prompts" in patching.unavailable(none, "bad")
  told = dataclasses.replace(
    problem.config,
    base_store="x",
    arms=(config.Arm(name="bad", store="y"),),
  )
  models = patching.problem_lib.Models(told, problem.mesh)
  stores = dataclasses.replace(problem, models=models)
  assert "no model of 'bad'" in patching.unavailable(stores, "bad")
