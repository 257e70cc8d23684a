# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Tables of quality.py from made-up cells; the features of synthetic.py."""

import dataclasses
import importlib
import pathlib

import numpy as np
import pytest

from sae_jax import store

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
HOOK = "blocks.0.hook_resid_post"


@pytest.fixture
def module(monkeypatch):
  """Imports a module of benchmarks/."""
  monkeypatch.syspath_prepend(FOLDER)
  return importlib.import_module


@pytest.fixture
def make_result(module):
  """A cell's result with the numbers given."""
  cells = module("quality_cells")

  def make(system, seed, fvu, *, recovered=None, dead=0.0, rate=None):
    cell = cells.Cell(
      system=system,
      hook=HOOK,
      latents=64,
      k=4,
      seed=seed,
      batch=8,
      steps=2,
      rate=rate,
    )
    return {
      "cell": dataclasses.asdict(cell),
      "version": "1.0",
      "metrics": {"eval/fvu": fvu, "eval/l0": 4.0, "eval/dead_frac": dead},
      "loss": None if recovered is None else {"recovered": recovered},
      "clock": {"processor_s": 1.0},
      "curve": [[2, 1.0, 1.0, fvu]],
    }

  return make


def test_differences_are_taken_between_equal_seeds(module, make_result):
  table = module("quality_table")
  results = [
    make_result("sae_jax", 0, 0.10),
    make_result("sae_jax", 1, 0.30),
    make_result("sae_lens", 1, 0.33),
    make_result("sae_lens", 0, 0.11),
    make_result("sae_lens", 2, 9.0),  # there is none of ours
  ]
  ((_, (ours, theirs)),) = table.entries(results).items()
  values = table.differences(ours, theirs, table.fvu)
  assert values == pytest.approx([-0.01, -0.03])
  # Sample deviation 0.02 / √2, standard error 0.01.
  assert table.mean(values, "+.3f") == "-0.020 ± 0.010"


def test_a_recipe_is_compared_with_our_same_recipe(module, make_result):
  table = module("quality_table")
  results = [
    make_result("sae_jax", 0, 0.5),
    make_result("sae_jax", 0, 0.2, rate=1e-3),
    make_result("sae_lens", 0, 0.3, rate=1e-3),
    make_result("sae_lens", 0, 0.4, rate=2e-3),  # which ours has not run
  ]
  ((_, found),) = table.entries(results).items()
  against = {e.recipe: table.reference(found, e).recipe for e in found[2:]}
  assert against == {
    "0.001, warm-up 0": "0.001, warm-up 0",
    "0.002, warm-up 0": "default",
  }


def test_where_a_peer_is_ahead_it_is_said(module, make_result):
  table = module("quality_table")

  def said(**theirs):
    results = [
      make_result("sae_jax", 0, 0.2, recovered=0.9, dead=0.1),
      make_result("sae_lens", 0, **{"fvu": 0.2, "dead": 0.1} | theirs),
    ]
    ((_, found),) = table.entries(results).items()
    return [line.split(":")[0] for line in table.losses(found)]

  assert said(fvu=0.19) == ["- FVU"]
  assert said(dead=0.05) == ["- latents that never fired"]
  assert said(recovered=0.903) == ["- loss recovered"]
  assert said(fvu=0.21, recovered=0.901, dead=0.2) == []  # within the bar


def test_recovery_assigns_a_row_to_one_feature_only(module):
  synthetic = module("synthetic")
  features_GD = np.eye(3, 5, dtype=np.float32)
  # Any order and length; the third feature has no row of its own.
  w_dec_FD = np.float32([[0, 2, 0, 0, 0], [0.5, 0, 0, 0, 0], [0, 0, 0, 1, 0]])
  largest_G, assigned_G = synthetic.recovery(features_GD, w_dec_FD)
  assert largest_G.tolist() == [1, 1, 0]
  assert assigned_G.tolist() == [1, 1, 0]
  # Two features between which one row lies: only one of them can have it.
  pair_GD = np.float32([[1, 0.1], [1, -0.1]]) / np.sqrt(np.float32(1.01))
  row_FD = np.float32([[1, 0], [0, -1]])
  largest_G, assigned_G = synthetic.recovery(pair_GD, row_FD)
  assert (largest_G > 0.99).all() and (assigned_G > 0.9).sum() == 1


def test_features_fire_as_described(module):
  synthetic = module("synthetic")
  truth = synthetic.make_truth(32, seed=0)
  assert truth.features_GD.shape == (320, 32)
  rows = 4000
  on_NG = synthetic._firing(truth, rows, np.random.default_rng(0))
  # 10 on average; a row's number has a deviation of 4, its mean one of 0.063.
  assert on_NG.sum(1).mean() == pytest.approx(10, abs=0.3)
  parents_NT = on_NG[:, truth.kind_G == 2]
  children_NTC = on_NG[:, truth.kind_G == 3].reshape(*parents_NT.shape, -1)
  assert (children_NTC.sum(2) <= parents_NT).all()
  groups_NTM = on_NG[:, truth.kind_G == 1].reshape(rows, -1, 8)
  together = (groups_NTM[:, :, 0] & groups_NTM[:, :, 1]).mean()
  apart = groups_NTM[:, :, 0].mean() * groups_NTM[:, :, 1].mean()
  assert together > 5 * apart


def test_rows_are_those_of_their_seed(module):
  synthetic = module("synthetic")
  truth = synthetic.make_truth(32, seed=0)
  one_ND, same_ND, other_ND = (
    synthetic.make_rows(truth, 64, seed) for seed in (1, 1, 2)
  )
  assert (one_ND == same_ND).all() and (one_ND != other_ND).any()


@pytest.mark.slow
def test_a_cell_is_measured_and_kept(module, tmp_path, quick_compilation):
  cells = module("quality_cells")
  rng = np.random.default_rng(0)
  x_ND = rng.normal(size=(512, 8)).astype(np.float32) + 2
  store.write_arrays(
    tmp_path / "store", {HOOK: x_ND}, read_rows=32, write_rows=128
  )
  source = store.open_store(tmp_path / "store")
  cell = cells.Cell(
    system="sae_jax",
    hook=HOOK,
    latents=16,
    k=2,
    seed=0,
    batch=32,
    steps=6,
    rate=1e-2,
    warmup=1,
  )
  assert cells.from_json(cells.to_json(cell)) == cell
  place = cells.place(tmp_path, source, cell)
  assert cells.result(place) is None
  cells.run(cell, source, 128, place)
  found = cells.result(place)
  assert found["metrics"]["rows"] == 128 and found["loss"] is None
  assert found["check"]["rows_equal"] == 1
  # The last look, on the same 128 rows, is the measure itself: both sum in
  # float64 what float32 gave for each row.
  assert found["curve"][-1][0] == 6
  assert found["curve"][-1][3] == pytest.approx(
    found["metrics"]["eval/fvu"], rel=1e-5
  )
