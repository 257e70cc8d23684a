# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A frozen dictionary's ranking against float64, and what it must not find."""

import fake_evidence as fake
import ml_dtypes
import numpy as np
import pytest

from sae_jax import errors, judge, mesh, store
from sae_jax.diff import config, evidence, frozen, margin, table

EPS = 2.0**-24
ARMS = (
  config.Arm(name="bad", store="/stores/bad"),
  config.Arm(name="good", store="/stores/good", role="control"),
)
TWO = (*ARMS, config.Arm(name="worse", store="/stores/worse"))


def make_arrays(rows=480, d_model=8, groups=24, seed=0):
  """Base, a drift (good), and the drift with latent 7's direction added."""
  rng = np.random.default_rng(seed)
  dictionary = fake.make_dictionary()
  group_N = np.repeat(np.arange(groups), rows // groups)
  base_ND = rng.standard_normal((rows, d_model))
  drift_D = 0.3 * rng.standard_normal(d_model)
  push_D = 2 * np.asarray(dictionary.params.w_dec_FD, np.float64)[7]
  on_N1 = (rng.random(rows) < 0.4)[:, None]
  wobble_ND = 0.1 * rng.standard_normal((rows, d_model))
  arrays = {
    "base": base_ND,
    "good": base_ND + drift_D,
    "bad": base_ND + drift_D + on_N1 * push_D,
    "worse": base_ND + drift_D + on_N1 * push_D + wobble_ND,
  }
  return arrays, group_N


def make_problem(work, *arms, arrays=None, group_N=None, **fields):
  made, groups = make_arrays()
  options = {k: fields.pop(k) for k in ("mesh", "dictionary") if k in fields}
  return fake.make_problem(
    work,
    made if arrays is None else arrays,
    groups if group_N is None else group_N,
    config=fake.make_config(*(arms or ARMS), **fields),
    **options,
  )


def parts_of(problem, skip=frozenset()):
  found = {(p.method, p.arm): p for p in frozen.run(problem, skip)}
  assert set(found) <= set(frozen.names(problem.config))
  return found


def test_parts_are_those_that_were_named(tmp_path):
  problem = make_problem(tmp_path / "work", *TWO)
  names = frozen.names(problem.config)
  assert names == [
    ("frozen", "bad"),
    ("frozen", "worse"),
    ("frozen", "joint"),
    ("frozen_plain", "bad"),
    ("frozen_plain", "worse"),
    ("frozen_plain", "good"),
  ]
  assert list(parts_of(problem)) == names
  assert list(parts_of(problem, frozenset(names[1:]))) == names[:1]
  assert not parts_of(problem, frozenset(names))


def test_a_live_diff_names_the_null_arm_and_the_gradient():
  live = config.DiffConfig(
    base="/base",
    arms=(config.Arm(name="bad", model="/bad"),),
    sae="/sae",
    prompts=judge.PromptsConfig(path="/prompts.jsonl"),
  )
  assert frozen.names(live) == [
    ("frozen", "bad"),
    ("frozen_plain", "null"),
    ("frozen_gradient", "bad"),
  ]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)])
def test_columns_are_those_of_float64(tmp_path, shape):
  problem = make_problem(tmp_path / "work", mesh=fake.make_mesh(*shape))
  part = parts_of(problem)["frozen", "bad"]
  arrays, _ = make_arrays()
  dense = {n: fake.dense(problem.dictionary, x) for n, x in arrays.items()}
  mean = {name: x_NF.mean(0) for name, x_NF in dense.items()}
  wanted = {
    "mean_base": mean["base"],
    "mean_tuned": mean["bad"],
    "mean_control": mean["good"],
    "delta": mean["bad"] - mean["base"],
    "delta_control": mean["good"] - mean["base"],
    "contrast": mean["bad"] - mean["good"],
    "score": mean["bad"] - mean["good"],
  }
  # An activation is a float32 dot product of 8 terms of size up to about 4.
  bound = 2 * (8 + 2) * EPS * 4
  for name, values_F in wanted.items():
    np.testing.assert_allclose(part.columns[name], values_F, atol=bound)
  for role, name in (("base", "base"), ("tuned", "bad"), ("control", "good")):
    np.testing.assert_allclose(
      part.columns[f"fires_{role}"], (dense[name] > 0).mean(0), atol=1e-12
    )
  assert part.control == "good"
  w_FD = np.asarray(problem.dictionary.params.w_dec_FD, np.float64)
  shift_D = bfloat(arrays["bad"]).mean(0) - bfloat(arrays["good"]).mean(0)
  cosine_F = w_FD @ shift_D / np.linalg.norm(shift_D)
  np.testing.assert_allclose(
    part.columns["cos_mean_difference"], cosine_F, atol=1e-5
  )
  np.testing.assert_allclose(part.columns["decoder_norm"], 1, atol=1e-6)


def bfloat(x_ND):
  return np.asarray(x_ND).astype(ml_dtypes.bfloat16).astype(np.float64)


def test_before_the_top_k_means_are_linear(tmp_path):
  problem = make_problem(tmp_path / "work", activation="pre")
  part = parts_of(problem)["frozen", "bad"]
  arrays, _ = make_arrays()
  p = problem.dictionary.params
  w_FD, b_F, b_D = (
    np.asarray(a, np.float64) for a in (p.w_enc_FD, p.b_enc_F, p.b_dec_D)
  )
  mean = {
    name: ((bfloat(x_ND) - b_D) @ w_FD.T + b_F).mean(0)
    for name, x_ND in arrays.items()
  }
  # Sums of bfloat16 in chunks of 256: see `sums.activation_sums`.
  for name, wanted_F in (
    ("mean_base", mean["base"]),
    ("mean_control", mean["good"]),
    ("score", mean["bad"] - mean["good"]),
    ("delta", mean["bad"] - mean["base"]),
  ):
    np.testing.assert_allclose(part.columns[name], wanted_F, atol=1e-4)
  assert "fires_base" not in part.columns
  assert part.summary["never_active"] is None


def test_the_planted_latent_is_first_and_the_drift_is_not(tmp_path):
  found = parts_of(make_problem(tmp_path / "work", *TWO))
  for arm in ("bad", "worse", "joint"):
    columns = found["frozen", arm].columns
    assert np.argmax(columns["score"]) == 7
    assert columns["changed"][7] and columns["ci_low"][7] > 0
    assert columns["stability"][7] == 1
  drifted_F = found["frozen_plain", "good"].columns["changed"]
  assert drifted_F.sum() > 3  # what the contrast takes away


def test_the_joint_ranking_is_of_the_mean_over_arms(tmp_path):
  found = parts_of(make_problem(tmp_path / "work", *TWO))
  each = [found["frozen", arm].columns for arm in ("bad", "worse")]
  joint = found["frozen", "joint"]
  for name in ("score", "mean_tuned", "fires_tuned", "contrast"):
    np.testing.assert_allclose(
      joint.columns[name], np.mean([c[name] for c in each], axis=0), atol=1e-12
    )
  assert any("2 arms" in text for text in joint.summary["warnings"])


def test_without_a_control_the_plain_difference_is_ranked(tmp_path):
  problem = make_problem(tmp_path / "work", ARMS[0])
  part = parts_of(problem)["frozen", "bad"]
  np.testing.assert_allclose(
    part.columns["score"], part.columns["delta"], atol=1e-12
  )
  assert part.control == "" and "contrast" not in part.columns
  assert "no matched control" in part.summary["warnings"][0]


def test_a_model_compared_with_itself_shows_nothing(tmp_path):
  arrays, group_N = make_arrays()
  same = {name: arrays["base"] for name in ("base", "bad", "good", "null")}
  for part in frozen.run(
    make_problem(tmp_path / "work", arrays=same, group_N=group_N)
  ):
    assert not part.columns["changed"].any()
    assert not part.columns["score"].any()
    assert (part.columns["p"] == 1).all() and part.summary["tested"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_rounding_is_no_change(tmp_path, seed):
  """Equal models that were run in other arrangements: last bits differ."""
  arrays, group_N = make_arrays(seed=seed)
  rng = np.random.default_rng(100 + seed)

  def run_again():
    shape = arrays["base"].shape
    # Two last bits of bfloat16, with a bias as another order of sums has it.
    error_ND = rng.normal(0.2, 1, shape) * 2.0**-8
    return arrays["base"] * (1 + error_ND)

  again = {"base": arrays["base"]}
  again |= {name: run_again() for name in ("bad", "good", "null")}
  found = parts_of(
    make_problem(tmp_path / "work", ARMS[0], arrays=again, group_N=group_N)
  )
  bad = found["frozen", "bad"]
  assert bad.columns["score"].any()
  assert not bad.columns["changed"].any()
  assert bad.summary["noise"]["largest"] > 0


def test_a_dictionary_of_one_latent(tmp_path):
  dictionary = fake.make_dictionary(latents=1, k=1)
  problem = make_problem(tmp_path / "work", dictionary=dictionary)
  part = parts_of(problem)["frozen", "bad"]
  arrays, _ = make_arrays()
  wanted_F = np.subtract(
    *(fake.dense(dictionary, arrays[n]).mean(0) for n in ("bad", "good"))
  )
  np.testing.assert_allclose(part.columns["score"], wanted_F, atol=1e-5)


def test_one_group_and_dead_latents(tmp_path):
  dictionary = fake.make_dictionary(latents=24, k=1)
  arrays, _ = make_arrays(rows=24)
  short = {name: x_ND[:3] for name, x_ND in arrays.items()}
  short["null"] = short["base"] + 0.1
  problem = make_problem(
    tmp_path / "work", arrays=short, group_N=np.zeros(3), dictionary=dictionary
  )
  part = parts_of(problem)["frozen", "bad"]
  assert not part.columns["changed"].any()
  assert part.summary["never_active"] >= 24 - 3 * 3
  assert "1 groups" in part.summary["warnings"][0]
  assert part.summary["noise"] is None
  dead_F = part.columns["mean_base"] + part.columns["mean_tuned"] == 0
  assert (part.columns["p"][dead_F] == 1).all()


def test_a_latent_that_does_not_split_over_the_mesh_is_refused(tmp_path):
  problem = make_problem(
    tmp_path / "work",
    mesh=fake.make_mesh(latent=8),
    dictionary=fake.make_dictionary(latents=20),
  )
  with pytest.raises(errors.InputError, match="20 latents"):
    next(frozen.run(problem))


def make_weighted(tmp_path, monkeypatch, pairs, groups=24, seed=3):
  """A problem whose margins have random gradients, by group of `pairs`."""
  problem = make_problem(
    tmp_path / "work",
    ARMS[0],
    ARMS[1],
    base="/base",
    prompts=judge.PromptsConfig(path="/prompts.jsonl"),
  )
  rng = np.random.default_rng(seed)
  filled = np.unique(np.asarray(pairs) % groups)
  grad_PD = 1 + 0.3 * rng.standard_normal((len(filled), 8))
  problem.pairs = lambda: tuple(pairs)
  problem.prompts = type("Prompts", (), {"prompts": [None] * groups})
  monkeypatch.setattr(margin, "group_gradients", lambda *_: grad_PD)
  return problem, grad_PD


def test_the_gradient_weighs_the_score(tmp_path, monkeypatch):
  problem, grad_PD = make_weighted(tmp_path, monkeypatch, range(24))
  found = parts_of(problem)
  plain, weighted = found["frozen", "bad"], found["frozen_gradient", "bad"]
  w_FD = np.asarray(problem.dictionary.params.w_dec_FD, np.float64)
  gradient_F = w_FD @ grad_PD.mean(0)
  np.testing.assert_allclose(weighted.columns["gradient"], gradient_F)
  score_F = plain.columns["score"] * gradient_F
  np.testing.assert_allclose(weighted.columns["score"], score_F, atol=1e-12)
  # The error of a product of two means, by the jackknife over prompts.
  arrays, group_N = make_arrays()
  dense = [fake.dense(problem.dictionary, arrays[n]) for n in ("bad", "good")]
  z_GF = fake.group_sums(dense[0] - dense[1], group_N, 24) / 20
  left_GF = np.stack(
    [
      np.delete(z_GF, g, 0).mean(0) * (w_FD @ np.delete(grad_PD, g, 0).mean(0))
      for g in range(24)
    ]
  )
  error_F = np.sqrt(23 * left_GF.var(0))
  live_F = score_F != 0
  found_F = np.abs(weighted.columns["score"] / weighted.columns["t"])
  # Linearised against left-out: they differ in second order, 1/24.
  np.testing.assert_allclose(found_F[live_F], error_F[live_F], rtol=2 / 24)


def test_prompts_without_a_pair_have_no_gradient(tmp_path, monkeypatch):
  problem, grad_PD = make_weighted(tmp_path, monkeypatch, [1, 4, 5, 9])
  weighted = parts_of(problem)["frozen_gradient", "bad"]
  np.testing.assert_allclose(
    weighted.directions["gradient"], grad_PD.mean(0), rtol=1e-6
  )
  problem.pairs = tuple
  assert ("frozen_gradient", "bad") not in parts_of(problem)


def write_store(path, x_ND, documents):
  store.write_arrays(
    path,
    {"blocks.1.hook_resid_post": x_ND},
    documents=documents,
    read_rows=16,
    write_rows=64,
  )
  return store.open_store(path)


def open_stores(directory, arrays, lengths, **options):
  documents = [np.arange(n, dtype=np.int32) for n in lengths]
  return evidence.from_stores(
    {
      name: write_store(directory / name, x_ND.astype(np.float32), documents)
      for name, x_ND in arrays.items()
    },
    "blocks.1.hook_resid_post",
    **{
      "skip": 1,
      "groups": 256,
      "batch_rows": 64,
      "mesh": mesh.single(),
      **options,
    },
  )


def test_paired_stores_of_documents_are_compared(tmp_path):
  """Rows are permuted, their number is no multiple of the batch."""
  arrays, _ = make_arrays(rows=480)
  rng = np.random.default_rng(0)
  length_N = rng.integers(12, 20, 30)
  rows = length_N.sum()
  arrays = {n: x[:rows] for n, x in make_arrays(rows=24 * 25)[0].items()}
  problem = make_problem(tmp_path / "work", *TWO)
  problem.evidence = open_stores(tmp_path, arrays, length_N)
  found = parts_of(problem)
  first_N = np.repeat(np.cumsum(length_N) - length_N, length_N)
  kept_N = np.arange(rows) - first_N >= 1  # skip=1
  dense = {n: fake.dense(problem.dictionary, x) for n, x in arrays.items()}
  wanted_F = (dense["bad"] - dense["good"])[kept_N].mean(0)
  part = found["frozen", "bad"]
  np.testing.assert_allclose(part.columns["score"], wanted_F, atol=1e-5)
  assert np.argmax(part.columns["score"]) == 7
  assert part.summary["groups"] == 30
  table.write_part(tmp_path / "parts", part)
  back = table.read_part(tmp_path / "parts", "frozen", "bad")
  assert back.summary == part.summary
  np.testing.assert_array_equal(
    back.columns["changed"], part.columns["changed"]
  )


def test_an_empty_scope_is_refused(tmp_path):
  arrays, _ = make_arrays(rows=48)
  with pytest.raises(errors.InputError, match="no token"):
    open_stores(tmp_path, arrays, [2] * 24, skip=2)
