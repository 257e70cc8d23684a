# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The report card as other programs read it."""

import json

import numpy as np
import pytest
from evaluation_data import HOOK, make_sae, make_store

from sae_jax import errors, evaluate
from sae_jax.evaluate import lm_loss

D, F = 6, 20


@pytest.fixture
def measured(tmp_path, small_mesh):
  x_ND = np.random.default_rng(0).normal(size=(70, D))
  source = make_store(tmp_path / "store", None, x_ND)
  return evaluate.evaluate(
    make_sae(F, D, 3), source, HOOK, range(5), mesh=small_mesh
  )


def test_metric_names_and_files(measured, tmp_path):
  measured.write(tmp_path)
  numbers = json.loads((tmp_path / "metrics.json").read_text())
  assert {k for k in numbers if k.startswith("eval/")} == {
    "eval/fvu",
    "eval/explained_variance",
    "eval/mse",
    "eval/cosine",
    "eval/norm_ratio",
    "eval/l0",
    "eval/dead_frac",
  }
  assert numbers["eval/explained_variance"] == 1 - numbers["eval/fvu"]
  assert (numbers["hook"], numbers["rows"], numbers["latents"]) == (HOOK, 70, F)
  with np.load(tmp_path / "density.npz", allow_pickle=False) as arrays:
    assert set(arrays) == {"fires_F", "density_F", "mean_F", "max_F"}
    np.testing.assert_allclose(arrays["density_F"], arrays["fires_F"] / 70)
    assert np.mean(arrays["fires_F"] == 0) == numbers["eval/dead_frac"]


def test_the_language_model_part(measured, tmp_path, monkeypatch, small_mesh):
  """With a model, its numbers stand beside the others, under fixed names."""
  seen = {}

  def fake(dictionary, model, hook, contexts, mean_D, **kwargs):
    seen.update(kwargs, contexts=contexts, mean_D=mean_D)
    return lm_loss.LmLoss(
      contexts=2,
      tokens=9,
      replaced_frac=0.5,
      ce_clean=1.0,
      ce_spliced=1.5,
      ce_zero=6.0,
      ce_mean=4.0,
      kl=0.1,
      loss_recovered=0.9,
      loss_recovered_95=(0.8, 0.95),
    )

  monkeypatch.setattr(lm_loss, "measure", fake)
  rng = np.random.default_rng(0)
  documents = [rng.integers(0, 9, 10) for _ in range(12)]
  x_ND = rng.normal(size=(120, D)) + 5
  source = make_store(tmp_path / "other", documents, x_ND)
  found = evaluate.evaluate(
    make_sae(F, D, 3),
    source,
    HOOK,
    range(4, 8),
    mesh=small_mesh,
    model=object(),
    config=evaluate.EvaluateConfig(contexts=3, seed=7),
  )
  # Rows 64 and on: document 6 is not whole, and 11 might go on.
  assert len(seen["contexts"]) == 3 and seen["seed"] == 7
  assert {c.document for c in seen["contexts"]} <= {7, 8, 9, 10}
  np.testing.assert_allclose(seen["mean_D"], 5, atol=0.6)
  assert found.metrics["eval/loss_recovered"] == 0.9
  assert found.metrics["eval/ce_mean"] == 4.0
  assert found.metrics["lm_tokens"] == 9
  json.dumps(found.metrics, allow_nan=False)


@pytest.mark.parametrize("field", ["contexts", "batch_rows", "batch_contexts"])
def test_impossible_sizes_are_refused(field):
  with pytest.raises(errors.InputError, match=field):
    evaluate.EvaluateConfig(**{field: -1})
