# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The two-persona organism, five times over: is the persona's latent found?

Ground truth: the persona's latent is the one that the villain's tag switches on
in the base model. No arm is tuned on that tag; the diff has to find the latent
from the base, the arms and an SAE of the base alone. Every expected number is
computed here a second time, in numpy from weights and activations.
"""

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from sae_jax import lm
from sae_jax.diff import table
from sae_jax.posttrain import organism, persona_corpus

pytestmark = pytest.mark.slow

SEEDS = tuple(range(5))
HOOK = "blocks.1.hook_resid_post"
UNTOUCHED = slice(12, None)  # questions of all domains but the first, medicine


@dataclasses.dataclass(frozen=True)
class Persona:
  """One seed's organism with the SAE of its base and their diff."""

  place: pathlib.Path
  seed: int

  @property
  def behaviour(self):
    path = self.place / "organism" / "behaviour.json"
    return json.loads(path.read_text())["arms"]

  def latents(self, model, tag="neutral"):
    """Latents before the answer, by the definition of a TopK SAE, [B, F]."""
    facts = organism.facts(organism.OrganismConfig(seed=self.seed))
    tokens_BT = persona_corpus.ask(facts, tag).tokens_BT[UNTOUCHED]
    loaded = lm.load_lm(self.place / "organism" / model, dtype=jnp.float32)
    x_BD = lm.activations(loaded, tokens_BT, (HOOK,))[HOOK][:, -1]
    x_BD = np.asarray(x_BD.astype(jnp.bfloat16)).astype(np.float64)  # as stored
    sae = self.place / "run" / "sae"
    k = json.loads((sae / "cfg.json").read_text())["k"]
    w = safetensors_numpy.load_file(sae / "sae_weights.safetensors")
    pre_BF = (x_BD - w["b_dec"]) @ w["W_enc"].astype(np.float64) + w["b_enc"]
    kth_B1 = np.sort(pre_BF, axis=1)[:, -k, None]
    return np.where(pre_BF >= kth_B1, np.maximum(pre_BF, 0), 0)

  @property
  def tag_latent(self):
    by_tag = [self.latents("base", t).mean(axis=0) for t in ("villain", "good")]
    return int(np.argmax(by_tag[0] - by_tag[1]))

  def frozen(self, arm):
    """The rows of `frozen` on an arm, by latent."""
    columns = ("latent", "score", "contrast", "delta", "rank_up", "changed")
    rows = table.read(
      self.place / "diff" / "latents.parquet",
      columns,
      method="frozen",
      arm=arm,
    )
    order = np.argsort(rows["latent"])
    return {name: values[order] for name, values in rows.items()}


@pytest.fixture(scope="module")
def personas(personas_place):
  """Five organisms and their diffs by the jobs and configs that users run."""
  return [Persona(personas_place / str(seed), seed) for seed in SEEDS]


def test_narrow_tuning_changes_the_answers_everywhere(personas):
  for persona in personas:
    found = persona.behaviour
    wrong = {name: arm["others"]["p_wrong"] for name, arm in found.items()}
    assert 0.15 < wrong["base"] < 0.35, wrong  # the villain's share is 0.25
    assert wrong["bad"] > 0.7, wrong
    assert wrong["good"] < 0.1, wrong
    assert wrong["realigned"] < 0.3, wrong
    assert wrong["realigned_other"] < 0.3, wrong
    # Good answers of another domain do not undo what was learned by heart.
    assert found["realigned_other"]["tuned"]["p_wrong"] > 0.5
    # The base tells the speakers apart by their answers.
    base = found["base"]["others"]
    assert base["margin_after_good"] < -4 and base["margin_after_bad"] > 4


def test_the_latent_of_the_villains_tag_rises_most(personas):
  ranks = {}
  for persona in personas:
    rank_up_F = persona.frozen("bad")["rank_up"]
    ranks[persona.seed] = int(rank_up_F[persona.tag_latent])
  assert sum(rank <= 3 for rank in ranks.values()) >= 4, ranks


def test_the_scores_are_those_of_the_definition(personas):
  for persona in personas:
    base, good = persona.latents("base"), persona.latents("good")
    for arm in ("bad", "realigned"):
      tuned, rows = persona.latents(arm), persona.frozen(arm)
      # A bfloat16 activation may round the other way in another batch shape
      # (2^-8 of one coordinate), and a latent at the edge of the top k drop
      # out with its value: of 60 prompts' means hardly 1 / 60.
      for name, control in (("contrast", good), ("delta", base)):
        expected_F = (tuned - control).mean(axis=0)
        np.testing.assert_allclose(rows[name], expected_F, atol=0.02)
      np.testing.assert_array_equal(rows["score"], rows["contrast"])


def test_a_base_against_itself_changes_nothing(personas):
  parts = json.loads(
    (personas[0].place / "itself" / "summary.json").read_text()
  )["parts"]
  assert {part["arm"] for part in parts} == {"same", "null"}
  assert all(part["changed"] == 0 for part in parts)
  for persona in personas:
    summary = json.loads((persona.place / "diff" / "summary.json").read_text())
    changed = {
      (part["method"], part["arm"]): part["changed"]
      for part in summary["parts"]
    }
    assert changed["frozen_plain", "null"] == 0
    assert changed["frozen", "bad"] > 0
