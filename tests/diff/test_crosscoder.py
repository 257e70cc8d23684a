# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Crosscoders of a base and an arm: whose latents are whose.

Ground truth: rows are sparse sums of directions; `bad` has one that the base
has not, and lacks one of the base's.
"""

import dataclasses

import fake_evidence
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, formats, mesh, sae, store, stream
from sae_jax.diff import config as config_lib
from sae_jax.diff import (
  crosscoder,
  dictionary_pass,
  latent_scaling,
  paired_sums,
  problem,
  table,
  tags,
)
from sae_jax.diff import evidence as evidence_lib
from sae_jax.jobs import train as train_job
from sae_jax.train import config as train_config
from sae_jax.train import optimizer

HOOK = "blocks.1.hook_resid_post"
DOCUMENTS, LENGTH, WIDTH, LATENTS, K = 24, 20, 10, 12, 4
ROWS = DOCUMENTS * LENGTH
SHARED, BASE_OWN, BAD_OWN = slice(0, 6), 6, 7
# The base's rows are smaller, which norms must not be judged by.
SCALE = {"base": 0.25, "bad": 2.0, "same": 0.25}

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
  place = tmp_path_factory.mktemp("stores")
  rng = np.random.default_rng(0)
  w_FD = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0][:8]
  f_NF = (1 + rng.exponential(1, (ROWS, 8))) * (rng.random((ROWS, 8)) < 0.3)
  rows = {}
  for name, own in (("base", BASE_OWN), ("bad", BAD_OWN), ("same", BASE_OWN)):
    kept = [*range(6), own]
    x_ND = f_NF[:, kept] @ w_FD[kept] + 0.01 * rng.normal(size=(ROWS, WIDTH))
    rows[name] = SCALE[name] * x_ND
  rows["equal"] = rows["base"]  # to the bit
  for name, x_ND in rows.items():
    store.write_arrays(
      place / name,
      {HOOK: x_ND},
      documents=[np.arange(LENGTH)] * DOCUMENTS,
      read_rows=32,
      write_rows=128,
      model=name,
    )
  return place, w_FD


def make_crosscoder(seed=0, **fields):
  """Random, with some blocks short or zero."""
  rng = np.random.default_rng(seed)
  dec_FMd = rng.normal(size=(LATENTS, 2, WIDTH))
  dec_FMd[0, 0] = dec_FMd[1, 1] = 0
  dec_FMd[2, 0] *= 0.05
  dec_FMd[3, 1] *= 0.05
  enc_FMd = dec_FMd + 0.1 * rng.normal(size=dec_FMd.shape)
  enc_FMd[:, 0] *= 8  # as much as the base's rows are smaller

  def array(x):
    return jnp.asarray(x, jnp.float32)

  params = sae.Params(
    array(enc_FMd.reshape(LATENTS, -1)),
    array(dec_FMd.reshape(LATENTS, -1)),
    array(0.1 * rng.normal(size=LATENTS)),
    array(0.1 * rng.normal(size=2 * WIDTH)),
  )
  return sae.make_sae(params, K, sources=2, **fields)


def make_problem(place, work, crosscoders, *arms, on=None, **fields):
  on = on or fake_evidence.make_mesh()
  (work / "work").mkdir(parents=True, exist_ok=True)
  paths = []
  for i, one in enumerate(crosscoders):
    path = one
    if isinstance(one, sae.Sae):
      path = work / f"crosscoder{i}"
      formats.save_sae(one, path)
    paths.append(str(path))
  config = config_lib.DiffConfig(
    base_store=str(place / "base"),
    arms=tuple(config_lib.Arm(name=n, store=str(place / n)) for n in arms),
    sae="/sae",
    methods=("crosscoder",),
    crosscoder=tuple(paths),
    statistics=config_lib.StatisticsConfig(resamples=200, top=3),
    **{"skip_positions": 0} | fields,
  )
  opened = {"base": store.open_store(config.base_store)} | {
    arm.name: store.open_store(arm.store) for arm in config.arms
  }
  return problem.Problem(
    config=config,
    evidence=evidence_lib.from_stores(
      opened,
      HOOK,
      skip=config.skip_positions,
      groups=256,
      batch_rows=64,
      mesh=on,
    ),
    dictionary=fake_evidence.make_dictionary(24, WIDTH),
    mesh=on,
    work=work / "work",
    prompts=None,
    models=problem.Models(config, on),
  )


def run(*args, **kwargs):
  given = make_problem(*args, **kwargs)
  wanted = crosscoder.names(given.config)
  assert list(crosscoder.run(given, frozenset(wanted))) == []
  parts = [tags.tagged(part) for part in crosscoder.run(given)]
  assert [(part.method, part.arm) for part in parts] == wanted
  return parts


def oracle(found: sae.Sae, place, arm, keep_N):
  """Everything in float64 from the definitions, dense."""
  x_NMd = np.stack(
    [
      store.open_store(place / name).read(HOOK, 0, ROWS).astype(np.float64)
      for name in ("base", arm)
    ],
    axis=1,
  )
  f_NF = fake_evidence.dense(found, x_NMd.reshape(ROWS, -1))[keep_N]
  x_NMd = x_NMd[keep_N]
  d_FMd = np.asarray(found.params.w_dec_FD, np.float64)
  d_FMd = d_FMd.reshape(LATENTS, 2, WIDTH)
  bias_Md = np.asarray(found.params.b_dec_D, np.float64).reshape(2, WIDTH)
  made_NMd = np.einsum("nf,fmd->nmd", f_NF, d_FMd)
  scale_M = 1 / np.sqrt(np.mean(np.sum(x_NMd**2, axis=2), axis=0))
  norm_FM = np.linalg.norm(d_FMd, axis=2) * scale_M
  middle_d = (bias_Md * scale_M[:, None]).mean(0)
  targets = {
    "": lambda j, m: x_NMd[:, m] - middle_d / scale_M[m],
    "_r": lambda j, m: made_NMd[:, m] + bias_Md[m] - middle_d / scale_M[m],
    "_e": lambda j, m: (
      x_NMd[:, m] - bias_Md[m] - made_NMd[:, m] + f_NF[:, j, None] * d_FMd[j, m]
    ),
  }
  columns = {
    "norm_base": norm_FM[:, 0],
    "norm_tuned": norm_FM[:, 1],
    "delta_norm": 0.5
    * (1 + (norm_FM[:, 1] - norm_FM[:, 0]) / norm_FM.max(axis=1)),
    "fires_tuned": (f_NF > 0).mean(0),
    "contribution": np.sqrt((f_NF**2).mean(0)) * norm_FM.max(1),
  }
  side_F = norm_FM.argmax(axis=1)
  for suffix, target in targets.items():
    beta_FM = np.empty((LATENTS, 2))
    for j in range(LATENTS):
      own = side_F[j]
      # Least squares itself, not the formula: β f d ≈ y in scaled units.
      basis = (f_NF[:, j, None] * d_FMd[j, own] * scale_M[own]).ravel()
      for m in range(2):
        y = (target(j, m) * scale_M[m]).ravel()
        beta_FM[j, m] = np.linalg.lstsq(basis[:, None], y, rcond=None)[0][0]
    columns[f"beta{suffix}_base"] = beta_FM[:, 0]
    columns[f"beta{suffix}_tuned"] = beta_FM[:, 1]
    at = np.arange(LATENTS)
    # One that does not even fit its own side is nobody's.
    own_F = np.where(beta_FM[at, side_F] > 0, beta_FM[at, side_F], np.nan)
    columns[f"nu{suffix}"] = beta_FM[at, 1 - side_F] / own_F
  fvu_M = [
    np.sum((made_NMd[:, m] + bias_Md[m] - x_NMd[:, m]) ** 2)
    / np.sum((x_NMd[:, m] - x_NMd[:, m].mean(0)) ** 2)
    for m in range(2)
  ]
  return columns, fvu_M, f_NF


def test_columns_equal_least_squares_in_numpy(stores, tmp_path):
  place, _ = stores
  found = make_crosscoder()
  (part,) = run(
    place,
    tmp_path,
    [found],
    "bad",
    on=fake_evidence.make_mesh(2, 2, 2),
    skip_positions=3,
  )
  positions_N = store.open_store(place / "base").positions(0, ROWS)[:, 1]
  wanted, fvu_M, f_NF = oracle(found, place, "bad", positions_N >= 3)
  assert (f_NF > 0).any(0).all()
  for name, values_F in wanted.items():
    # float32 sums of 408 products, of up to 10 times the result's size
    np.testing.assert_allclose(
      part.columns[name], values_F, rtol=2e-4, atol=2e-5, err_msg=name
    )
  explained = part.summary["variance_explained"]
  for m, name in enumerate(("base", "bad")):
    assert explained[name]["share"] == pytest.approx(1 - fvu_M[m], rel=1e-4)
    assert explained[name]["ci_low"] < explained[name]["share"]
  assert part.summary["l0"] == pytest.approx((f_NF > 0).sum(1).mean())
  blocks_FMd = np.asarray(found.params.w_dec_FD).reshape(LATENTS, 2, WIDTH)
  a, b = blocks_FMd[:, 0], blocks_FMd[:, 1]
  size_F = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
  cos_F = np.sum(a * b, 1) / np.where(size_F > 0, size_F, 1)
  np.testing.assert_allclose(part.columns["cos_models"], cos_F, atol=1e-6)
  nu_F = np.maximum(wanted["nu_r"], wanted["nu_e"]).clip(0, 1)
  np.testing.assert_allclose(
    part.columns["score"],
    np.nan_to_num((2 * wanted["delta_norm"] - 1) * (1 - nu_F)),
    rtol=1e-3,
    atol=1e-4,
  )


def trained(place, out, arm, **fields):
  config = train_config.TrainConfig(
    store=str(place / "base"),
    paired=(str(place / arm),),
    hook=HOOK,
    sae=sae.SaeConfig(
      latents=LATENTS,
      k=3,
      activation="batch_topk",
      dead_after_tokens=2000,
      matmul_dtype="float32",
      **fields,
    ),
    optimizer=optimizer.OptimizerConfig(learning_rate=2e-2, warmup_steps=10),
    stream=stream.StreamConfig(batch_size=96, mix_chunks=4),
    steps=300,
    checkpoint_every=1000,
    mesh=mesh.MeshConfig(data=8, latent=1),
  )
  train_job.run(config, str(out))
  return out


@pytest.mark.slow
def test_the_planted_latents_are_their_models_own(stores, tmp_path):
  place, w_FD = stores
  path = trained(place, tmp_path / "run", "bad")
  (part,) = run(place, tmp_path, [path], "bad")
  columns = part.columns
  dec_FD = np.asarray(formats.load_sae(path).params.w_dec_FD)
  for own, model, words in (
    (BAD_OWN, latent_scaling.TUNED, "tuned-only"),
    (BASE_OWN, latent_scaling.BASE, "base-only"),
  ):
    block_Fd = np.split(dec_FD, 2, axis=1)[model]
    cos_F = block_Fd @ w_FD[own] / np.linalg.norm(block_Fd, axis=1)
    found = [i for i, t in enumerate(columns["tags"]) if words in t.split(",")]
    assert found, columns
    assert (cos_F[found] > 0.9).all()
  best = int(np.argmax(columns["score"]))
  assert "tuned-only" in columns["tags"][best] and columns["changed"][best]
  np.testing.assert_array_equal(
    part.directions[f"latent_{best}"], dec_FD[best, WIDTH:]
  )
  # Of the 6 that both have, none is anybody's alone.
  shared_F = columns["cos_models"] > 0.9
  assert not (shared_F & columns["changed"] & (columns["fires_base"] > 0)).any()
  assert part.summary["tuned_only"] >= 1 and part.summary["base_only"] >= 1
  assert part.summary["trained_on_these_rows"]
  assert part.summary["patching"]["available"] is False


@pytest.mark.slow
def test_equal_models_have_nothing_of_their_own(stores, tmp_path):
  place, _ = stores
  # Not even where latents of one model alone are forced upon them.
  path = trained(place, tmp_path / "run", "equal", exclusive_latents=(3, 3))
  (part,) = run(place, tmp_path, [path], "equal")
  assert (part.columns["delta_norm"][3:6] == 1).all()
  shown = {n: part.columns[n] for n in ("fires_base", "nu", "nu_r", "nu_e")}
  assert not part.columns["changed"].any(), shown
  said = part.summary["warnings"]
  assert any("because the crosscoder was built so" in w for w in said)


def test_a_pass_that_was_killed_ends_with_the_same_bits(
  stores, tmp_path, monkeypatch
):
  place, _ = stores
  monkeypatch.setattr(paired_sums, "_FOLD", 2)
  monkeypatch.setattr(dictionary_pass, "_SECONDS", -1)

  def given(name):
    whole = make_problem(place, tmp_path / name, [make_crosscoder()], "bad")
    return crosscoder._joined(whole, whole.config.arms[0], make_crosscoder())

  whole = paired_sums.measure(given("whole"), "bad")
  view, plain = given("cut"), evidence_lib.Evidence.batches

  def batches(self, name, start=0):
    for batch in plain(self, name, start):
      if batch.index == 5 and not start:
        raise KeyboardInterrupt
      yield batch

  monkeypatch.setattr(evidence_lib.Evidence, "batches", batches)
  with pytest.raises(KeyboardInterrupt):
    paired_sums.measure(view, "bad")
  found = paired_sums.measure(view, "bad")
  for field in dataclasses.fields(paired_sums.Sums):
    np.testing.assert_array_equal(
      getattr(found, field.name), getattr(whole, field.name)
    )


def test_what_is_no_crosscoder_of_base_and_arm_is_refused(stores, tmp_path):
  place, _ = stores
  plain = fake_evidence.make_dictionary(LATENTS, WIDTH)
  with pytest.raises(errors.InputError, match="sources=1"):
    run(place, tmp_path / "a", [plain], "bad")
  with pytest.raises(errors.InputError, match=r"one run per tuned arm.*bad, s"):
    run(place, tmp_path / "b", [plain], "bad", "same")
  ids = {n: store.open_store(place / n).identity for n in ("base", "bad")}

  def joined(*names, hooks=(HOOK, HOOK)):
    about = [
      {"store": ids.get(n, n), "model": n, "hook": h}
      for n, h in zip(names, hooks, strict=True)
    ]
    return dataclasses.replace(
      make_crosscoder(), metadata=sae.Metadata({"sae_jax_joined": about})
    )

  for i, (made, message) in enumerate(
    (
      (joined("bad", "base"), "every sign would be turned"),
      (joined("base", "base", hooks=(HOOK, "blocks.2.x")), "of the layers"),
    )
  ):
    with pytest.raises(errors.InputError, match=message):
      run(place, tmp_path / f"c{i}", [made], "bad")
  with pytest.raises(errors.InputError, match="was trained on 'bad'"):
    run(
      place,
      tmp_path / "d",
      [joined("base", "bad"), joined("base", "bad")],
      "same",
      "bad",
    )
  wide = fake_evidence.make_dictionary(LATENTS, 6)
  wide = dataclasses.replace(wide, sources=2)
  with pytest.raises(errors.InputError, match="make 20"):
    run(place, tmp_path / "e", [wide], "bad")


def test_what_is_exclusive():
  """Every gate alone keeps a latent out; both sides have the same ones."""
  delta = np.array([1.0, 0.9, 0.89, 1, 1, 1, 0.1, 0, 0.11, 1, 0.5])
  nu_r = np.array([0.0, 0.49, 0, 0.5, 0, np.nan, 0, 0, 0, -0.3, 0])
  nu_e = np.array([0.0, 0.19, 0, 0, 0.2, 0, 0.1, 0, 0, 0, 0])
  fires = np.array([5, 9, 9, 9, 9, 9, 9, 4, 9, 9, 9])
  found = latent_scaling.exclusive(delta, nu_r, nu_e, fires)
  assert np.flatnonzero(found).tolist() == [0, 1, 6, 9]
  assert np.flatnonzero(latent_scaling.shared(delta)).tolist() == [10]


def test_rows_of_the_table_survive_the_disk(stores, tmp_path):
  place, _ = stores
  (part,) = run(place, tmp_path, [make_crosscoder()], "bad")
  table.write_part(tmp_path / "parts", part)
  again = table.read_part(tmp_path / "parts", "crosscoder", "bad")
  assert again.dictionary == "crosscoder"
  assert again.summary["sign"] == part.summary["sign"]
  for name in ("delta_norm", "nu_r", "nu_e", "beta_e_base", "cos_models"):
    np.testing.assert_allclose(
      again.columns[name], part.columns[name], rtol=1e-6
    )
