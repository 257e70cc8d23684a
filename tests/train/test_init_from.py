# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs on differences of stores, and runs that start from a dictionary."""

import dataclasses
import json

import numpy as np
import pytest

from sae_jax import config as config_lib
from sae_jax import errors, formats, mesh, metrics, sae, store, stream
from sae_jax.jobs import train as job
from sae_jax.train import config as train_config
from sae_jax.train import optimizer
from sae_jax.train import run as run_lib

HOOK = "blocks.0.hook_resid_post"
ROWS, WIDTH, LATENTS = 768, 16, 32


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
  """base, tuned = base + sparse difference, and one that is not paired."""
  directory = tmp_path_factory.mktemp("stores")
  rng = np.random.default_rng(0)
  base_ND = 5 * rng.normal(size=(ROWS, WIDTH))
  code_N8 = rng.exponential(size=(ROWS, 8)) * (rng.random((ROWS, 8)) < 0.2)
  shift_ND = code_N8 @ rng.normal(size=(8, WIDTH)) + rng.normal(size=WIDTH)
  for name, x_ND, seed in (
    ("base", base_ND, 0),
    ("tuned", base_ND + shift_ND, 0),
    ("unpaired", base_ND, 1),
  ):
    store.write_arrays(
      directory / name, {HOOK: x_ND}, read_rows=64, write_rows=256, seed=seed
    )
  return directory


@pytest.fixture(scope="module")
def config(stores):
  return train_config.TrainConfig(
    store=str(stores / "tuned"),
    hook=HOOK,
    sae=sae.SaeConfig(latents=LATENTS, k=4, matmul_dtype="float32"),
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
    stream=stream.StreamConfig(batch_size=64, mix_chunks=2),
    steps=12,
    held_out_rows=64,
    eval_every=4,
    checkpoint_every=4,
    log_every=1,
    mesh=mesh.MeshConfig(data=2, latent=4),
  )


@pytest.fixture(scope="module")
def start(config, tmp_path_factory):
  """A finished run on the tuned store itself."""
  out = tmp_path_factory.mktemp("start") / "run"
  job.run(config, str(out))
  return out


def weights(out):
  params = formats.load_sae(out).params
  arrays = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
  return {n: np.asarray(a) for n, a in arrays.items() if a is not None}


def trace(out):
  return [
    {k: v for k, v in line.items() if not k.startswith("perf/")}
    for line in metrics.read(out / "metrics.jsonl")
  ]


def assert_same(a, b):
  for name, array in weights(a).items():
    np.testing.assert_array_equal(array, weights(b)[name])


@pytest.mark.slow
def test_a_run_on_differences_equals_one_on_a_store_of_them(
  stores, config, tmp_path
):
  config = dataclasses.replace(config, minus=str(stores / "base"))
  job.run(config, str(tmp_path / "a"))
  view = store.difference(
    *(store.open_store(stores / name) for name in ("tuned", "base"))
  )
  rows_N2 = view.positions(0, ROWS)
  x_ND = np.empty((ROWS, WIDTH), np.float32)
  x_ND[rows_N2[:, 0]] = view.read(HOOK, 0, ROWS)  # a document has one row
  store.write_arrays(
    tmp_path / "store", {HOOK: x_ND}, read_rows=64, write_rows=256
  )
  plain = dataclasses.replace(config, store=str(tmp_path / "store"), minus="")
  job.run(plain, str(tmp_path / "b"))
  # The scale of the first is of the rows that are trained on, 512 of 768: it
  # changes rounding and the size of AuxK (nothing is dead here), not the data.
  for one, two in zip(
    trace(tmp_path / "a"), trace(tmp_path / "b"), strict=True
  ):
    np.testing.assert_allclose(
      one.get("train/fvu", 0), two.get("train/fvu", 0), rtol=0.1
    )
  read = json.loads((tmp_path / "a/config.json").read_text())["inputs"]
  about = formats.load_sae(tmp_path / "a").metadata
  assert read == view.identities
  assert about["sae_jax_store"] == read["store"]
  assert about["sae_jax_minus"] == read["minus"]


def interrupted(config, out, step):
  """A run that ends as a kill does, at a step that has no checkpoint."""
  plain = run_lib.Run.log

  def log(self, at, scalars):
    if at == step:
      raise KeyboardInterrupt
    plain(self, at, scalars)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run_lib.Run, "log", log)
    with pytest.raises(KeyboardInterrupt):
      job.run(config, str(out))


@pytest.mark.slow
def test_a_resumed_run_is_bit_equal(stores, config, start, tmp_path):
  config = dataclasses.replace(
    config, minus=str(stores / "base"), init_from=str(start)
  )
  job.run(config, str(tmp_path / "whole"))
  interrupted(config, tmp_path / "run", 6)
  # What was read may have moved.
  moved = tmp_path / "moved"
  moved.symlink_to(start)
  job.run(
    dataclasses.replace(config, init_from=str(moved)), str(tmp_path / "run")
  )
  assert_same(tmp_path / "run", tmp_path / "whole")
  assert trace(tmp_path / "run") == trace(tmp_path / "whole")


@pytest.fixture(scope="module")
def unfinished(stores, config, start, tmp_path_factory):
  """The config of a run that was cut off early, and where it is."""
  config = dataclasses.replace(
    config, minus=str(stores / "base"), init_from=str(start)
  )
  out = tmp_path_factory.mktemp("unfinished") / "run"
  interrupted(config, out, 2)
  return config, out


@pytest.mark.slow
@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"minus": ""}, "input minus"),
    ({"init_from": ""}, "input init_from"),
    ({"init_from": "other"}, "input init_from"),
    ({"store": "base", "minus": "tuned"}, "input minus"),
  ],
)
def test_a_run_does_not_go_on_with_something_else(
  stores, unfinished, start, tmp_path, change, message
):
  config, out = unfinished
  loaded = formats.load_sae(start)
  p = dataclasses.replace(loaded.params, b_enc_F=loaded.params.b_enc_F + 1)
  formats.save_sae(dataclasses.replace(loaded, params=p), tmp_path / "other")
  places = {
    "base": str(stores / "base"),
    "tuned": str(stores / "tuned"),
    "other": str(tmp_path / "other"),
  }
  other = dataclasses.replace(
    config, **{k: places.get(v, v) for k, v in change.items()}
  )
  with pytest.raises(errors.InputError, match=message):
    job.run(other, str(out))


def test_training_starts_at_the_dictionary(config, start, tmp_path):
  """One step of almost no length stays where it was, latent by latent."""
  still = dataclasses.replace(
    config,
    init_from=str(start / "sae"),
    steps=1,
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-12, warmup_steps=0),
  )
  job.run(still, str(tmp_path / "run"))
  before, after = weights(start), weights(tmp_path / "run")
  np.testing.assert_array_equal(before["w_enc_FD"], after["w_enc_FD"])
  for name in ("w_dec_FD", "b_enc_F", "b_dec_D"):
    # Rows are renormalised and biases scaled and unscaled: 3 roundings.
    np.testing.assert_allclose(
      before[name], after[name], rtol=4e-7, atol=1e-11, err_msg=name
    )
  looks = [
    line["eval/fvu"] for line in trace(tmp_path / "run") if "eval/fvu" in line
  ]
  # The same dictionary on the same held-out rows.
  np.testing.assert_allclose(looks[0], trace(start)[-1]["eval/fvu"], rtol=1e-5)
  known = formats.load_sae(tmp_path / "run").metadata["sae_jax_init_from"]
  assert known == formats.hash_sae(start)


@pytest.mark.slow
def test_rows_that_are_not_of_norm_1_are_made_so(config, start, tmp_path):
  """Lengths move into the encoder: the same top-k of contributions."""
  loaded = formats.load_sae(start)
  length_F1 = np.linspace(0.5, 2, LATENTS, dtype=np.float32)[:, None]
  p = loaded.params
  p = dataclasses.replace(
    p,
    w_dec_FD=p.w_dec_FD * length_F1,
    w_enc_FD=p.w_enc_FD / length_F1,
    b_enc_F=p.b_enc_F / length_F1[:, 0],
  )
  formats.save_sae(dataclasses.replace(loaded, params=p), tmp_path / "long")
  still = dataclasses.replace(
    config,
    init_from=str(tmp_path / "long"),
    steps=1,
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-12, warmup_steps=0),
  )
  job.run(still, str(tmp_path / "run"))
  for name, array in weights(tmp_path / "run").items():
    np.testing.assert_allclose(
      array, weights(start)[name], rtol=1e-6, atol=1e-7, err_msg=name
    )


def test_what_does_not_fit_is_refused(stores, config, start, tmp_path):
  with pytest.raises(errors.InputError, match="not paired"):
    job.run(
      dataclasses.replace(config, minus=str(stores / "unpaired")),
      str(tmp_path / "a"),
    )
  with pytest.raises(errors.InputError, match=r"sae\.latents is 64"):
    wide = sae.SaeConfig(latents=64, k=4)
    job.run(
      dataclasses.replace(config, init_from=str(start), sae=wide),
      str(tmp_path / "b"),
    )
  with pytest.raises(errors.InputError, match="no such directory"):
    job.run(
      dataclasses.replace(config, init_from=str(tmp_path / "none")),
      str(tmp_path / "c"),
    )
  with pytest.raises(errors.InputError, match="no difference to train on"):
    job.run(
      dataclasses.replace(config, minus=config.store), str(tmp_path / "d")
    )
  loaded = formats.load_sae(start)
  p = loaded.params
  p = dataclasses.replace(p, w_dec_FD=p.w_dec_FD.at[7].set(0))
  formats.save_sae(dataclasses.replace(loaded, params=p), tmp_path / "zero")
  with pytest.raises(errors.InputError, match="decoder row 7 is zero"):
    job.run(
      dataclasses.replace(config, init_from=str(tmp_path / "zero")),
      str(tmp_path / "e"),
    )


def test_a_config_of_before_is_read(config):
  """Runs that were recorded without the two fields can be evaluated."""
  recorded = config_lib.to_dict(config)
  del recorded["minus"], recorded["init_from"]
  assert config_lib.from_dict(train_config.TrainConfig, recorded) == config
