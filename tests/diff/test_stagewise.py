# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One dictionary fine-tuned along two paths."""

import dataclasses

import fake_evidence
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, formats, mesh, sae, store, stream
from sae_jax.diff import config as config_lib
from sae_jax.diff import stagewise, stagewise_runs
from sae_jax.jobs import train as train_job
from sae_jax.train import config as train_config
from sae_jax.train import optimizer

LATENTS, WIDTH = 20, 8
NAMES = [
  field.name
  for field in dataclasses.fields(stagewise_runs.StagewiseRuns)
  if field.name != "arm"
]


def turned(rng, w_FD, angle_F):
  """Rows turned by these angles towards random directions."""
  other_FD = rng.normal(size=w_FD.shape)
  other_FD -= np.sum(other_FD * w_FD, 1, keepdims=True) * w_FD
  other_FD /= np.linalg.norm(other_FD, axis=1, keepdims=True)
  return np.cos(angle_F)[:, None] * w_FD + np.sin(angle_F)[:, None] * other_FD


def save(path, w_FD, **metadata):
  w_FD = jnp.asarray(w_FD, jnp.float32)
  params = sae.Params(
    w_enc_FD=w_FD,
    w_dec_FD=w_FD,
    b_enc_F=jnp.zeros(len(w_FD)),
    b_dec_D=jnp.zeros(w_FD.shape[1]),
  )
  formats.save_sae(sae.make_sae(params, 2, metadata), path)


@pytest.fixture
def made(tmp_path):
  """Five dictionaries by hand; latent 7 turns in the model steps only, latent
  3 in one of them, latent 5 in the data steps."""
  rng = np.random.default_rng(0)
  w_FD = rng.normal(size=(LATENTS, WIDTH))
  w_FD /= np.linalg.norm(w_FD, axis=1, keepdims=True)
  little_F = rng.uniform(0.01, 0.1, LATENTS)

  def step(w_FD, **angles):
    angle_F = little_F.copy()
    for latent, angle in angles.items():
      angle_F[int(latent[1:])] = angle
    return turned(rng, w_FD, angle_F)

  rows = {"start": w_FD, "data_first": step(w_FD, _5=1.0)}
  rows["data_then_model"] = step(rows["data_first"], _7=0.9)
  rows["model_first"] = step(w_FD, _7=1.0, _3=1.2)
  rows["model_then_data"] = step(rows["model_first"], _5=1.1)
  for name, w_FD in rows.items():
    save(tmp_path / name, w_FD)
  return rows


def runs(tmp_path, **fields):
  given = {name: str(tmp_path / name) for name in NAMES} | fields
  return stagewise_runs.StagewiseRuns(**given)


def run(tmp_path, **fields):
  config = dataclasses.replace(
    fake_evidence.make_config(),
    sae=fields.pop("sae", str(tmp_path / "start")),
    stagewise=runs(tmp_path, **fields),
  )
  problem = fake_evidence.FakeProblem(config, None, None, None, None)
  done = frozenset(stagewise.names(config))
  assert list(stagewise.run(problem, done)) == []
  (part,) = stagewise.run(problem)
  assert {(part.method, part.arm)} == done
  return part


def test_the_cosines_are_those_of_the_steps(made, tmp_path):
  part = run(tmp_path)
  for column, pair in {
    "cos_data_first": ("start", "data_first"),
    "cos_model_second": ("data_first", "data_then_model"),
    "cos_model_first": ("start", "model_first"),
    "cos_data_second": ("model_first", "model_then_data"),
  }.items():
    before_FD, after_FD = (made[name] for name in pair)
    # Stored as float32: 2^-24 in every one of 8 factors of rows of norm 1.
    np.testing.assert_allclose(
      part.columns[column],
      np.sum(before_FD * after_FD, axis=1),
      atol=8 * 2**-24,
    )
  worst_F = np.maximum(
    part.columns["cos_model_first"], part.columns["cos_model_second"]
  )
  np.testing.assert_allclose(part.columns["score"], 1 - worst_F, atol=1e-12)


def test_what_turned_in_both_model_steps_comes_first(made, tmp_path):
  part = run(tmp_path)
  # q of the first: no data step turned a latent so far in both orders but
  # latent 5, which turned by more.
  order_F = np.argsort(-part.columns["score"])
  assert order_F[0] == 7
  assert part.columns["score"][7] == pytest.approx(1 - np.cos(0.9), abs=1e-5)
  assert part.columns["score"][3] < 0.01 and part.columns["score"][5] < 0.01
  assert len(part.summary["warnings"]) == 4  # lineage on trust


def test_p_and_q_are_shares_of_the_null():
  rng = np.random.default_rng(1)
  score_F = np.round(rng.exponential(size=60), 1)  # with ties
  score_F[:5] += 10
  null_N = np.round(rng.exponential(size=60), 1)
  p_F, q_F = stagewise.against_null(score_F, null_N)
  for i, score in enumerate(score_F):
    assert p_F[i] == pytest.approx((1 + (null_N >= score).sum()) / 61)
    shares = [
      (null_N >= t).sum() / (score_F >= t).sum() for t in score_F if t <= score
    ]
    assert q_F[i] == pytest.approx(min(1, *shares))
  assert (q_F[:5] == 0).all()


def test_five_times_the_same_dictionary_shows_nothing(made, tmp_path):
  paths = {name: str(tmp_path / "start") for name in NAMES}
  part = run(tmp_path, **paths)
  assert (part.columns["score"] == 0).all()
  assert (part.columns["p"] == 1).all() and (part.columns["q"] == 1).all()
  assert not part.columns["changed"].any()


def test_steps_as_large_as_the_texts_are_no_discovery(tmp_path):
  """Both kinds of step turn all latents alike: few pass at q = 0.05."""
  rng = np.random.default_rng(2)
  found = []
  for trial in range(10):
    place = tmp_path / str(trial)
    place.mkdir()
    w_FD = rng.normal(size=(400, WIDTH))
    w_FD /= np.linalg.norm(w_FD, axis=1, keepdims=True)

    def step(w_FD):
      return turned(rng, w_FD, rng.uniform(0, 1, len(w_FD)))

    rows = {"start": w_FD, "data_first": step(w_FD), "model_first": step(w_FD)}
    rows["data_then_model"] = step(rows["data_first"])
    rows["model_then_data"] = step(rows["model_first"])
    for name, w_FD in rows.items():
      save(place / name, w_FD)
    found.append(int(run(place).columns["changed"].sum()))
  # The largest of 800 numbers is a score with probability 1/2, the largest two
  # with 1/4, …: about one latent on average, geometric.
  assert np.mean(found) < 4


def test_dictionaries_that_do_not_belong_together_are_refused(made, tmp_path):
  with pytest.raises(
    errors.InputError, match=r"stagewise\.start=.*not the dic"
  ):
    run(tmp_path, sae=str(tmp_path / "data_first"))
  save(tmp_path / "wide", np.eye(LATENTS + 1, WIDTH))
  with pytest.raises(errors.InputError, match=r"data_first=.*\(latents"):
    run(tmp_path, data_then_model=str(tmp_path / "wide"))
  with pytest.raises(
    errors.InputError, match=r"stagewise\.data_first is empty"
  ):
    runs(tmp_path, data_first="")


def test_ours_have_to_have_begun_from_one_another(made, tmp_path):
  start = formats.hash_sae(tmp_path / "start")
  for init, message in (
    ({}, "began from random rows"),
    ({"sae_jax_init_from": "0" * 64}, "began from another dictionary"),
  ):
    save(tmp_path / "stray", made["data_first"], sae_jax_store="a", **init)
    with pytest.raises(errors.InputError, match=message) as error:
      run(tmp_path, data_first=str(tmp_path / "stray"))
    assert "init_from=" in str(error.value)
  save(
    tmp_path / "data_first",
    made["data_first"],
    sae_jax_store="a",
    sae_jax_init_from=start,
  )
  assert len(run(tmp_path).summary["warnings"]) == 3


def test_the_arm_has_to_be_clear(made, tmp_path):
  arms = [config_lib.Arm(name=n, store="/s") for n in ("one", "two")]
  config = dataclasses.replace(
    fake_evidence.make_config(*arms), stagewise=runs(tmp_path)
  )
  with pytest.raises(errors.InputError, match="the tuned arms are one, two"):
    stagewise.names(config)
  named = dataclasses.replace(config, stagewise=runs(tmp_path, arm="two"))
  assert stagewise.names(named) == [("stagewise", "two")]


FEATURES = 16
TURNED = 5


def write_store(path, model, text, seed):
  """Rows of sparse codes of features; the tuned model has one feature turned,
  the new text has other features often."""
  rng = np.random.default_rng(seed)
  directions = np.linalg.qr(
    np.random.default_rng(9).normal(size=(FEATURES, FEATURES))
  )[0]
  if model == "tuned":
    away = np.random.default_rng(10).normal(size=FEATURES)
    away -= away @ directions[TURNED] * directions[TURNED]
    away /= np.linalg.norm(away)
    directions[TURNED] = 0.5 * directions[TURNED] + 0.75**0.5 * away
  rate = np.where(np.arange(FEATURES) % 2 == (text == "new"), 0.16, 0.08)
  codes_NF = (1 + rng.random((4096, FEATURES))) * (
    rng.random((4096, FEATURES)) < rate[None, :]
  )
  x_ND = codes_NF @ directions + 0.02 * rng.normal(size=(4096, FEATURES))
  store.write_arrays(
    path, {"blocks.0.hook_resid_post": x_ND}, read_rows=64, write_rows=1024
  )
  return directions


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_latent_that_only_the_model_changed_is_found(tmp_path, monkeypatch):
  """Real runs, each begun from the one before it."""
  # Small steps on eight devices mostly wait for one another.
  one_device = mesh.single()
  monkeypatch.setattr(mesh, "make", lambda _: one_device)
  pairs = {
    (m, t): tmp_path / f"{m}-{t}"
    for m in ("base", "tuned")
    for t in ("o", "new")
  }
  for seed, ((model, text), path) in enumerate(pairs.items()):
    directions = write_store(path, model, text, seed)
    if (model, text) == ("base", "o"):
      base_directions = directions
  for name, pair, before, steps in (
    ("start", ("base", "o"), "", 300),
    ("data_first", ("base", "new"), "start", 120),
    ("data_then_model", ("tuned", "new"), "data_first", 120),
    ("model_first", ("tuned", "o"), "start", 120),
    ("model_then_data", ("tuned", "new"), "model_first", 120),
  ):
    config = train_config.TrainConfig(
      store=str(pairs[pair]),
      hook="blocks.0.hook_resid_post",
      sae=sae.SaeConfig(latents=24, k=3, matmul_dtype="float32"),
      optimizer=optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=10),
      stream=stream.StreamConfig(batch_size=256, mix_chunks=8),
      steps=steps,
      init_from=str(tmp_path / before) if before else "",
      checkpoint_every=1000,
    )
    train_job.run(config, str(tmp_path / name))
  part = run(tmp_path)
  w_FD = np.asarray(formats.load_sae(tmp_path / "start").params.w_dec_FD)
  cos_F = w_FD @ base_directions[TURNED]
  assert cos_F.max() > 0.95  # the feature has a latent
  score_F = part.columns["score"]
  assert np.argmax(score_F) == np.argmax(cos_F)
  assert part.columns["changed"][np.argmax(cos_F)]
  others_F = np.delete(score_F, np.argmax(cos_F))
  assert score_F.max() > 0.3 > 3 * np.median(others_F)
  assert part.summary["warnings"] == []
