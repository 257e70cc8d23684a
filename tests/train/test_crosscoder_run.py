# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Crosscoders are trained: on models side by side, and on layers.

Ground truth: both models' rows are sparse sums of directions; one direction is
in the tuned model's alone.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest

from sae_jax import errors, formats, mesh, sae, store, stream
from sae_jax.jobs import train as train_job
from sae_jax.train import config as config_lib
from sae_jax.train import optimizer, start
from sae_jax.train import run as run_lib

HOOK, OTHER = "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"
ROWS, WIDTH, LATENTS = 1024, 12, 16

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
  place = tmp_path_factory.mktemp("stores")
  rng = np.random.default_rng(0)
  w_FD = np.linalg.qr(rng.normal(size=(WIDTH, 8)))[0].T
  f_NF = rng.exponential(2, (ROWS, 8)) * (rng.random((ROWS, 8)) < 0.25)
  tuned_ND = f_NF @ w_FD
  base_ND = f_NF[:, :7] @ w_FD[:7]
  noise = 0.02 * rng.normal(size=(2, ROWS, WIDTH))
  documents = [np.arange(16)] * (ROWS // 16)
  for name, x_ND in (("base", base_ND), ("tuned", 3 * tuned_ND)):
    store.write_arrays(
      place / name,
      {HOOK: x_ND + noise[0], OTHER: 2 * x_ND[:, ::-1] + noise[1]},
      documents=documents,
      read_rows=32,
      write_rows=128,
      model=name,
    )
  return place


def make_config(place, **fields):
  given = {
    "store": str(place / "base"),
    "paired": (str(place / "tuned"),),
    "hook": HOOK,
    "sae": sae.SaeConfig(
      latents=LATENTS,
      k=3,
      dead_after_tokens=2000,
      matmul_dtype="float32",
      shared_latents=4,
      exclusive_latents=(1, 2),
    ),
    "optimizer": optimizer.OptimizerConfig(learning_rate=2e-2, warmup_steps=10),
    "stream": stream.StreamConfig(batch_size=64, mix_chunks=4),
    "steps": 60,
    "eval_every": 20,
    "held_out_rows": 128,
    "checkpoint_every": 30,
    "mesh": mesh.MeshConfig(data=1, latent=8),
  }
  return config_lib.TrainConfig(**given | fields)


@pytest.fixture(scope="module")
def trained(stores, tmp_path_factory):
  """A run that was killed once, and went on."""
  config = make_config(stores)
  path = tmp_path_factory.mktemp("run") / "run"
  with pytest.raises(KeyboardInterrupt):
    _stopped_at(35, config, path)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(start, "new_states", None)  # it must not begin anew
    return train_job.run(config, str(path)), path


def _stopped_at(step, config, path):
  plain = run_lib.Run.log

  def log(self, at, scalars):
    if at == step:
      raise KeyboardInterrupt
    plain(self, at, scalars)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run_lib.Run, "log", log)
    train_job.run(config, str(path))


@pytest.mark.slow
def test_bound_latents_keep_their_form_to_the_bit(stores, trained):
  _, path = trained
  found = formats.load_sae(path)
  dec_FMd = np.asarray(found.params.w_dec_FD).reshape(LATENTS, 2, WIDTH)
  enc_FMd = np.asarray(found.params.w_enc_FD).reshape(LATENTS, 2, WIDTH)
  for blocks in (dec_FMd, enc_FMd):
    assert not blocks[4, 1].any() and not blocks[5:7, 0].any()
    assert blocks[4, 0].any() and blocks[5:7, 1].any(axis=1).all()
  # For raw rows a block is divided by its source's scale, one number.
  ratio_Fd = dec_FMd[:4, 1] / dec_FMd[:4, 0]
  np.testing.assert_allclose(ratio_Fd, ratio_Fd[0, 0], rtol=1e-6)
  norms_M = [
    store.open_store(stores / name).stats(HOOK).mean_square_norm
    for name in ("base", "tuned")
  ]
  assert ratio_Fd[0, 0] == pytest.approx((norms_M[1] / norms_M[0]) ** 0.5)
  # The encoder's are not tied, and some free latents are of one model more.
  assert (enc_FMd[:4, 0] != enc_FMd[:4, 1]).any()


@pytest.mark.slow
def test_metrics_are_of_every_source(trained):
  result, path = trained
  assert result["steps"] == 60
  text = (path / "metrics.jsonl").read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  last = [line for line in lines if "train/fvu" in line][-1]
  for name in ("train/fvu_0", "train/fvu_1"):
    assert 0 < last[name] < 1.5
  looked = [line for line in lines if "eval/fvu" in line]
  assert {"eval/fvu_0", "eval/fvu_1"} <= looked[-1].keys()
  low, high = sorted((looked[-1]["eval/fvu_0"], looked[-1]["eval/fvu_1"]))
  assert low <= looked[-1]["eval/fvu"] <= high
  assert looked[-1]["eval/fvu"] < 0.5 * looked[0]["eval/fvu"]


@pytest.mark.slow
def test_the_export_says_what_it_is_of(stores, trained):
  _, path = trained
  found = formats.load_sae(path)
  assert found.sources == 2 and found.d_model == 2 * WIDTH
  joined = found.metadata["sae_jax_joined"]
  assert [one["model"] for one in joined] == ["base", "tuned"]
  assert [one["hook"] for one in joined] == [HOOK, HOOK]
  assert [one["store"] for one in joined] == [
    store.open_store(stores / name).identity for name in ("base", "tuned")
  ]
  # Raw rows of both models in, raw rows of both out.
  source = start.open_source(make_config(stores))
  x_BD = jax.numpy.asarray(source.read(HOOK, 0, 256).astype(np.float32))
  made_BD = sae.decode(found, *sae.encode(found, x_BD))
  for part in (slice(WIDTH), slice(WIDTH, None)):
    x, made = np.asarray(x_BD[:, part]), np.asarray(made_BD[:, part])
    assert np.sum((x - made) ** 2) < 0.5 * np.sum((x - x.mean(0)) ** 2)


@pytest.mark.slow
def test_layers_and_another_kind(stores, tmp_path):
  bound = dataclasses.asdict(make_config(stores).sae)
  fields = {"activation": "relu", "sparsity": 0.02, "k": 0}
  config = make_config(
    stores,
    paired=(),
    hooks=(OTHER,),
    sae=sae.SaeConfig(**bound | fields | {"shared_sparsity": 0.5}),
    mesh=mesh.MeshConfig(data=2, latent=4),
    normalize="centre",
  )
  result = train_job.run(config, str(tmp_path / "run"))
  assert result["eval/fvu_0"] < 0.6 and result["eval/fvu_1"] < 0.6
  found = formats.load_sae(tmp_path / "run")
  assert found.sources == 2
  assert found.metadata["hook_name"] == f"{HOOK}+{OTHER}"
  hooks = [one["hook"] for one in found.metadata["sae_jax_joined"]]
  assert hooks == [HOOK, OTHER]
  dec_FMd = np.asarray(found.params.w_dec_FD).reshape(LATENTS, 2, WIDTH)
  enc_FMd = np.asarray(found.params.w_enc_FD).reshape(LATENTS, 2, WIDTH)
  for blocks in (dec_FMd, enc_FMd):
    assert not blocks[4, 1].any() and not blocks[5:7, 0].any()
  ratio_Fd = dec_FMd[:4, 1] / dec_FMd[:4, 0]
  np.testing.assert_allclose(ratio_Fd, ratio_Fd[0, 0], rtol=1e-6)


def test_what_does_not_fit_is_refused(stores):
  def resolve(**fields):
    config = make_config(stores, **fields)
    return start.resolved(config, start.open_source(config))

  assert resolve().sae.sources == 2
  bound = make_config(stores).sae
  with pytest.raises(errors.InputError, match="only a crosscoder"):
    resolve(paired=())
  with pytest.raises(errors.InputError, match="a number for each"):
    resolve(sae=dataclasses.replace(bound, exclusive_latents=(1, 1, 1)))
  with pytest.raises(errors.InputError, match="leave sae"):
    resolve(sae=dataclasses.replace(bound, sources=3))
  with pytest.raises(errors.InputError, match="leave one out"):
    resolve(minus=str(stores / "tuned"))
  with pytest.raises(errors.InputError, match="leave one out"):
    resolve(hooks=(OTHER,), sweep=(config_lib.MemberConfig(hook=OTHER),))
