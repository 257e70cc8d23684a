# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A dictionary of differences on the differences of a diff."""

import dataclasses

import fake_evidence
import ml_dtypes
import numpy as np
import pytest

from sae_jax import errors, formats, mesh, sae, store, stream
from sae_jax.diff import config as config_lib
from sae_jax.diff import delta, delta_fit, dictionary_pass, problem
from sae_jax.diff import evidence as evidence_lib
from sae_jax.jobs import train as train_job
from sae_jax.train import config as train_config
from sae_jax.train import optimizer

HOOK = "blocks.1.hook_resid_post"
DOCUMENTS, LENGTH, WIDTH, LATENTS = 24, 20, 8, 24
ROWS = DOCUMENTS * LENGTH


def write(directory, **arrays):
  documents = [np.arange(LENGTH)] * DOCUMENTS
  for name, x_ND in arrays.items():
    store.write_arrays(
      directory / name,
      {HOOK: x_ND},
      documents=documents,
      read_rows=32,
      write_rows=128,
      model=name,
    )


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
  """base; style = base + constant; bad = style + a direction on some rows."""
  directory = tmp_path_factory.mktemp("stores")
  rng = np.random.default_rng(0)
  base_ND = 4 * rng.normal(size=(ROWS, WIDTH))
  constant_D, planted_D = np.linalg.qr(rng.normal(size=(WIDTH, 2)))[0].T
  size_N = rng.exponential(2, ROWS) * (rng.random(ROWS) < 0.15)
  style_ND = base_ND + 1.5 * constant_D + 0.1 * rng.normal(size=base_ND.shape)
  bad_ND = style_ND + (size_N + 0.5 * (size_N > 0))[:, None] * planted_D
  other_ND = style_ND + 0.1 * rng.normal(size=base_ND.shape)
  write(
    directory,
    base=base_ND,
    style=style_ND,
    bad=bad_ND,
    same=base_ND,
    other=other_ND,
  )
  return directory, constant_D, planted_D


def make_problem(stores, work, dictionaries, *arms, on=None, **fields):
  """A diff of `arms` (name, role) with one saved dictionary per tuned arm."""
  on = on or fake_evidence.make_mesh()
  work.mkdir(parents=True, exist_ok=True)
  for i, dictionary in enumerate(dictionaries):
    if isinstance(dictionary, sae.Sae):
      formats.save_sae(dictionary, work / f"delta{i}")
  config = config_lib.DiffConfig(
    base_store=str(stores / "base"),
    arms=tuple(
      config_lib.Arm(name=n, role=r, store=str(stores / n)) for n, r in arms
    ),
    sae="/sae",
    methods=("delta",),
    delta=tuple(
      str(work / f"delta{i}") if isinstance(d, sae.Sae) else str(d)
      for i, d in enumerate(dictionaries)
    ),
    skip_positions=0,
    statistics=config_lib.StatisticsConfig(resamples=200, top=3),
  )
  config = dataclasses.replace(config, **fields)
  opened = {"base": store.open_store(config.base_store)} | {
    arm.name: store.open_store(arm.store) for arm in config.arms
  }
  (work / "work").mkdir(exist_ok=True)
  return problem.Problem(
    config=config,
    evidence=evidence_lib.from_stores(
      opened, HOOK, skip=0, groups=256, batch_rows=64, mesh=on
    ),
    dictionary=fake_evidence.make_dictionary(),
    mesh=on,
    work=work / "work",
    prompts=None,
    models=problem.Models(config, on),
  )


def run(*args, **kwargs):
  given = make_problem(*args, **kwargs)
  wanted = delta.names(given.config)
  assert list(delta.run(given, frozenset(wanted))) == []
  parts = list(delta.run(given))
  assert [(part.method, part.arm) for part in parts] == wanted
  return parts


def differences(stores, name):
  """Rows of the evidence in text order as stored differences, float64."""
  view = store.difference(
    store.open_store(stores / name), store.open_store(stores / "base")
  )
  return view.read(HOOK, 0, ROWS), view.positions(0, ROWS)[:, 0]


@pytest.mark.parametrize(
  "shape",
  [
    (2, 2, 2),
    pytest.param((1, 1, 1), marks=pytest.mark.slow),
    pytest.param((1, 2, 4), marks=pytest.mark.slow),
  ],
)
def test_columns_equal_numpy(stores, tmp_path, shape):
  directory, _, _ = stores
  dictionary = fake_evidence.make_dictionary(LATENTS, WIDTH, k=4, seed=3)
  (part,) = run(
    directory,
    tmp_path,
    [dictionary],
    ("bad", "tuned"),
    ("style", "control"),
    on=fake_evidence.make_mesh(*shape),
  )
  codes, means, fires = {}, {}, {}
  for name in ("bad", "style"):
    x_ND, _ = differences(directory, name)
    codes[name] = fake_evidence.dense(dictionary, x_ND)
    means[name], fires[name] = codes[name].mean(0), (codes[name] > 0).mean(0)
  zero_F = fake_evidence.dense(dictionary, np.zeros((1, WIDTH)))[0]
  columns = part.columns
  # Activations are float32 sums of 8 products of size up to 20.
  near = {"rtol": 1e-5, "atol": 1e-5}
  np.testing.assert_allclose(columns["mean_base"], zero_F, **near)
  np.testing.assert_allclose(columns["mean_tuned"], means["bad"], **near)
  np.testing.assert_allclose(columns["mean_control"], means["style"], **near)
  np.testing.assert_allclose(columns["delta"], means["bad"] - zero_F, **near)
  contrast_F = means["bad"] - means["style"]
  np.testing.assert_allclose(columns["score"], contrast_F, **near)
  np.testing.assert_allclose(columns["contrast"], contrast_F, **near)
  np.testing.assert_allclose(columns["fires_tuned"], fires["bad"], atol=1e-12)
  np.testing.assert_allclose(
    columns["fires_control"], fires["style"], atol=1e-12
  )
  assert part.dictionary == "delta" and part.control == "style"
  # What is explained, and by which latent alone.
  x_ND = differences(directory, "bad")[0].astype(np.float64)
  w_FD = np.asarray(dictionary.params.w_dec_FD, np.float64)
  bias_D = np.asarray(dictionary.params.b_dec_D, np.float64)
  rest_ND = x_ND - codes["bad"] @ w_FD - bias_D
  spread = np.sum((x_ND - x_ND.mean(0)) ** 2)
  error = np.sum(rest_ND**2)
  found = part.summary["variance_explained"]
  assert found["share"] == pytest.approx(1 - error / spread, rel=1e-4)
  assert found["ci_low"] < found["share"] < found["ci_high"]
  for latent in range(LATENTS):
    without_ND = rest_ND + codes["bad"][:, latent, None] * w_FD[latent]
    np.testing.assert_allclose(
      columns["explained"][latent],
      (np.sum(without_ND**2) - error) / spread,
      rtol=1e-4,
      atol=1e-6,
    )


def trained(stores, out, name):
  directory, _, _ = stores
  config = train_config.TrainConfig(
    store=str(directory / name),
    minus=str(directory / "base"),
    hook=HOOK,
    sae=sae.SaeConfig(latents=8, k=1, matmul_dtype="float32"),
    optimizer=optimizer.OptimizerConfig(learning_rate=2e-2, warmup_steps=10),
    stream=stream.StreamConfig(batch_size=96, mix_chunks=4),
    steps=200,
    checkpoint_every=1000,
    mesh=mesh.MeshConfig(data=8, latent=1),
  )
  train_job.run(config, str(out))
  return out


@pytest.mark.slow
def test_a_trained_delta_sae_finds_the_planted_direction(stores, tmp_path):
  directory, _, planted_D = stores
  path = trained(stores, tmp_path / "run", "bad")
  (part,) = run(
    directory, tmp_path, [path], ("bad", "tuned"), ("style", "control")
  )
  best = int(np.argmax(part.columns["score"]))
  w_FD = np.asarray(formats.load_sae(path).params.w_dec_FD)
  assert w_FD[best] @ planted_D > 0.97
  assert part.columns["changed"][best]
  assert np.argmax(part.columns["explained"]) == best
  np.testing.assert_array_equal(part.directions[f"latent_{best}"], w_FD[best])
  assert part.summary["trained_on_these_rows"]
  assert part.summary["variance_explained"]["share"] > 0.8
  # The constant is in the bias, and is what a mean would explain.
  assert part.summary["mean_share"] > 0.5
  # What the control has as well has not risen (where the planted direction
  # takes the one place of k = 1, it has fallen); a second latent may have a few
  # of the planted rows, of a cosine of 0.8 in one case.
  risen_F = part.columns["changed"] & (part.columns["score"] > 0)
  assert (w_FD[risen_F] @ planted_D > 0.5).all()
  with pytest.raises(errors.InputError, match="differences of 'bad', but"):
    run(
      directory,
      tmp_path / "swapped",
      [path, path],
      ("other", "tuned"),
      ("bad", "tuned"),
    )


def test_the_same_model_shows_nothing(stores, tmp_path):
  directory, _, _ = stores
  dictionary = fake_evidence.make_dictionary(LATENTS, WIDTH, k=4, seed=3)
  (part,) = run(directory, tmp_path, [dictionary], ("same", "tuned"))
  assert (part.columns["mean_base"] > 0).any()  # it says something to zero
  assert (part.columns["score"] == 0).all()
  assert not part.columns["changed"].any()
  assert part.summary["variance_explained"]["share"] is None
  assert part.directions == {}


def test_without_a_control_the_summary_warns(stores, tmp_path):
  directory, _, _ = stores
  dictionary = fake_evidence.make_dictionary(LATENTS, WIDTH, k=4, seed=3)
  (part,) = run(directory, tmp_path, [dictionary], ("bad", "tuned"))
  assert any("no matched control" in w for w in part.summary["warnings"])
  np.testing.assert_array_equal(
    part.columns["score"] != 0, part.columns["delta"] != 0
  )


def test_a_fit_that_was_killed_ends_with_the_same_bits(
  stores, tmp_path, monkeypatch
):
  directory, _, _ = stores
  monkeypatch.setattr(delta_fit, "_FOLD", 2)
  monkeypatch.setattr(dictionary_pass, "_SECONDS", -1)
  dictionary = fake_evidence.make_dictionary(LATENTS, WIDTH, k=4, seed=3)

  def given(name):
    whole = make_problem(
      directory, tmp_path / name, [dictionary], ("bad", "tuned")
    )
    return delta._differences(whole, whole.config.arms[0], dictionary)

  whole = delta_fit.fit(given("whole"), "bad")
  view, plain = given("cut"), evidence_lib.Evidence.batches

  def batches(self, name, start=0):
    for batch in plain(self, name, start):
      if batch.index == 5 and not start:
        raise KeyboardInterrupt
      yield batch

  monkeypatch.setattr(evidence_lib.Evidence, "batches", batches)
  with pytest.raises(KeyboardInterrupt):
    delta_fit.fit(view, "bad")
  found = delta_fit.fit(view, "bad")
  for field in dataclasses.fields(delta_fit.Fit):
    np.testing.assert_array_equal(
      getattr(found, field.name), getattr(whole, field.name)
    )


def test_what_does_not_fit_is_refused(stores, tmp_path):
  directory, _, _ = stores
  narrow = fake_evidence.make_dictionary(LATENTS, 6)
  with pytest.raises(errors.InputError, match="width 6, but"):
    run(directory, tmp_path / "a", [narrow], ("bad", "tuned"))
  plain = dataclasses.replace(
    fake_evidence.make_dictionary(LATENTS, WIDTH),
    metadata=sae.Metadata({"sae_jax_store": "x"}),
  )
  with pytest.raises(errors.InputError, match="activations of one model"):
    run(directory, tmp_path / "b", [plain], ("bad", "tuned"))
  with pytest.raises(errors.InputError, match=r"one run per tuned arm.*bad, o"):
    run(
      directory, tmp_path / "c", [narrow], ("bad", "tuned"), ("other", "tuned")
    )


def test_stored_differences_are_rounded_once(stores):
  """The oracle's own premise: bf16 of the f32 difference of bf16 rows."""
  directory, _, _ = stores
  x_ND, _ = differences(directory, "bad")
  a_ND, b_ND = (
    store.open_store(directory / n).read(HOOK, 0, ROWS).astype(np.float32)
    for n in ("bad", "base")
  )
  np.testing.assert_array_equal(x_ND, (a_ND - b_ND).astype(ml_dtypes.bfloat16))
