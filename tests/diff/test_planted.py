# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A planted difference ranks first; where none is planted nothing is found.

Activations are sparse sums of a dictionary's rows, with prompts that differ in
length and in what they are about; an arm's own prompts trigger one more row.
"""

import fake_evidence as fake
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import sae
from sae_jax.diff import config, frozen

ARMS = (
  config.Arm(name="bad", store="/stores/bad"),
  config.Arm(name="good", store="/stores/good", role="control"),
  config.Arm(name="same", store="/stores/same", role="null"),
)
PLANTED = 17
LATENTS, D_MODEL, K = 256, 48, 6


def make_problem(work, seed, *, strength=1.0, groups=44):
  """Rows with about K active latents each, heavy-tailed, by topic."""
  rng = np.random.default_rng(seed)
  w_FD = rng.standard_normal((LATENTS, D_MODEL))
  w_FD /= np.linalg.norm(w_FD, axis=1, keepdims=True)
  length_G = rng.integers(5, 40, groups)
  group_N = np.repeat(np.arange(groups), length_G)
  rows = len(group_N)
  # Each prompt has 40 latents that it is about.
  about_GF = rng.random((groups, LATENTS)) < 40 / LATENTS
  on_NF = about_GF[group_N] & (rng.random((rows, LATENTS)) < K / 40)
  on_NF[:, PLANTED] = False
  base_ND = (on_NF * rng.lognormal(0.5, 0.7, on_NF.shape)) @ w_FD

  def run(push=0.0, wobble=0.0):
    """Fine-tuning: a drift of some latents, noise, perhaps the planted row."""
    drift_F = np.zeros(LATENTS)
    drift_F[40:60] = 0.4
    x_ND = base_ND + drift_F @ w_FD
    x_ND = x_ND + wobble * rng.standard_normal(x_ND.shape)
    trigger_N = (rng.random(groups) < 0.6)[group_N] & (rng.random(rows) < 0.3)
    return x_ND + push * trigger_N[:, None] * w_FD[PLANTED]

  arrays = {
    "base": base_ND,
    "bad": run(strength * 3, wobble=0.05),
    "good": run(wobble=0.05),
    "same": base_ND * (1 + 2.0**-9 * rng.standard_normal(base_ND.shape)),
  }
  dictionary = sae.make_sae(
    sae.Params(
      w_enc_FD=jnp.asarray(w_FD, jnp.float32),
      w_dec_FD=jnp.asarray(w_FD, jnp.float32),
      b_enc_F=jnp.zeros(LATENTS),
      b_dec_D=jnp.zeros(D_MODEL),
    ),
    K,
  )
  return fake.make_problem(
    work,
    arrays,
    group_N,
    config=fake.make_config(*ARMS, statistics={"top": 20}),
    dictionary=dictionary,
    batch_rows=256,
  )


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_latent_ranks_first(tmp_path, seed):
  parts = {
    (p.method, p.arm): p.columns
    for p in frozen.run(make_problem(tmp_path / "work", seed))
  }
  contrast = parts["frozen", "bad"]
  assert np.argmax(contrast["score"]) == PLANTED
  assert contrast["changed"][PLANTED] and contrast["q"][PLANTED] < 1e-3
  assert contrast["stability"][PLANTED] == 1
  # The plain difference has the drift in it as well; the contrast has not.
  drift = np.arange(40, 60)
  assert parts["frozen_plain", "bad"]["changed"][drift].sum() > 10
  assert contrast["changed"][drift].sum() <= 5
  assert not parts["frozen_plain", "same"]["changed"].any()


def test_a_weaker_one_has_a_smaller_score(tmp_path):
  scores = []
  for strength in (0.0, 0.5, 1.0):
    problem = make_problem(tmp_path / str(strength), 0, strength=strength)
    part = next(iter(frozen.run(problem)))
    scores.append(part.columns["score"][PLANTED])
    assert part.columns["changed"][PLANTED] == (strength > 0)
  assert scores == sorted(scores)
