# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs of BatchTopK dictionaries: sweep, falling k, resume, look, export."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax import errors, formats, mesh, metrics, sae, store, stream
from sae_jax.jobs import train as job
from sae_jax.train import annealing, optimizer, program
from sae_jax.train import config as config_lib

HOOK = "blocks.0.hook_resid_post"
D, F, STEPS, SAVED = 16, 64, 12, 6

pytestmark = pytest.mark.usefixtures("quick_compilation")


def kind(**own):
  return sae.SaeConfig(
    **{
      "latents": F,
      "k": 4,
      "activation": "batch_topk",
      "dead_after_tokens": 60,
      "aux_k": 5,
      "matmul_dtype": "float32",
      **own,
    }
  )


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  rng = np.random.default_rng(0)
  codes_NF = rng.exponential(size=(512, 40)) * (rng.random((512, 40)) < 0.1)
  x_ND = codes_NF @ rng.normal(size=(40, D)) + rng.normal(size=D)
  path = tmp_path_factory.mktemp("batch") / "store"
  arrays = {HOOK: x_ND.astype(np.float32)}
  store.write_arrays(path, arrays, read_rows=32, write_rows=128)
  return config_lib.TrainConfig(
    store=str(path),
    hook=HOOK,
    sae=kind(prefixes=(8, 24, F), k_start=10, k_steps=8),
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
    stream=stream.StreamConfig(batch_size=64, mix_chunks=4),
    mesh=mesh.MeshConfig(data=2, latent=2),
    sweep=(config_lib.MemberConfig(), config_lib.MemberConfig(k=2, seed=1)),
    steps=STEPS,
    held_out_rows=64,
    eval_every=SAVED,
    checkpoint_every=SAVED,
    keep_checkpoints=3,
    log_every=1,
  )


@pytest.fixture(scope="module")
def train():
  """Runs a config on four devices; its program is compiled once."""
  make, sweep, made = mesh.make, program.sweep, []

  def once(*args):
    made[:] = made or [sweep(*args)]
    return made[0]

  def run(config, out):
    with pytest.MonkeyPatch.context() as patch:
      devices = jax.devices()[:4]
      patch.setattr(mesh, "make", lambda sizes, _=None: make(sizes, devices))
      patch.setattr(program, "sweep", once)
      return job.run(config, str(out))

  return run


def lines(directory):
  return [
    {k: v for k, v in line.items() if not k.startswith("perf/")}
    for line in metrics.read(directory / "metrics.jsonl")
  ]


@pytest.mark.slow
def test_a_sweep_whose_k_falls_and_that_is_resumed(config, train, tmp_path):
  whole, resumed = tmp_path / "whole", tmp_path / "resumed"
  found = train(config, whole)["members"]
  for i, k in enumerate((4, 2)):
    own = lines(whole / "members" / str(i))
    ks = [line["train/k"] for line in own[:STEPS]]
    assert ks[0] == 10 and ks[8:] == [k] * 4 and sorted(ks)[::-1] == ks
    for line in own[:STEPS]:
      # Equal values would be more; none are.
      assert line["train/l0"] <= line["train/k"]
    assert own[STEPS - 1]["train/l0"] == k
    assert 0 < max(line["train/dead_frac"] for line in own[:STEPS]) < 1
    assert max(line["train/auxk"] for line in own[:STEPS]) > 0
    assert own[STEPS - 1]["train/fvu"] < own[0]["train/fvu"]
    _assert_export_is_the_look(config, whole / "sae" / str(i), found[i])

  place = pathlib.Path("checkpoints", str(SAVED))
  shutil.copytree(whole / place, resumed / place)
  for file in ("config.json", "metrics.jsonl", "members"):
    copy = shutil.copytree if file == "members" else shutil.copy
    if (whole / file).exists():
      copy(whole / file, resumed / file)
  train(config, resumed)
  for i in map(str, range(2)):
    assert lines(resumed / "members" / i) == lines(whole / "members" / i)
    weights = pathlib.Path("sae", i, "sae_weights.safetensors")
    assert (resumed / weights).read_bytes() == (whole / weights).read_bytes()


def _assert_export_is_the_look(config, place, found):
  """The exported dictionary does on raw rows what the last look saw."""
  dictionary = formats.load_sae(place)
  assert dictionary.activation == "jumprelu"
  threshold_F = np.asarray(dictionary.params.threshold_F)
  assert threshold_F.shape == (F,) and (threshold_F == threshold_F[0]).all()
  assert threshold_F[0] > 0
  source = store.open_store(config.store)
  _, held_out = source.holdout(config.held_out_rows)
  x_ND = np.concatenate(source.read_chunks(HOOK, list(held_out)))
  x_ND = x_ND.astype(np.float32)
  fvu_N, l0_N = [], []
  for x_BD in x_ND.reshape(-1, config.stream.batch_size, D):
    values_BK, indices_BK = sae.encode(dictionary, x_BD)
    error_BD = sae.decode(dictionary, values_BK, indices_BK) - x_BD
    spread = np.square(x_BD - x_BD.mean(0)).sum()
    fvu_N.append(np.square(error_BD).sum() / spread)
    l0_N.append((np.asarray(values_BK) > 0).sum(1).mean())
  assert np.mean(l0_N) == pytest.approx(found["eval/l0"], rel=1e-6)
  # Sums of B·D = 1024 squares in another order, of values of D terms.
  assert np.mean(fvu_N) == pytest.approx(found["eval/fvu"], rel=1e-5)


def test_k_falls_linearly_and_stays():
  config = kind(k=4, k_start=10, k_steps=3)
  ks = [int(annealing.k_at(config, step)) for step in range(5)]
  assert ks == [10, 8, 6, 4, 4]
  assert int(annealing.k_at(config, jnp.int32(1), 1)) == 7
  assert annealing.k_at(kind(), 0) is None


@pytest.mark.parametrize(
  ("own", "named"),
  [
    ({"activation": "batch"}, r"activation='batch': choose one of topk, batch"),
    ({"prefixes": (8, 32)}, r"prefixes=\(8, 32\).*number of latents \(64\)"),
    ({"prefixes": (32, 8, F)}, "that ascend"),
    ({"prefixes": (0, F)}, "at least 1"),
    ({"multi_topk": -1.0}, r"multi_topk=-1\.0"),
    ({"multi_topk": 0.125, "k": 17}, "4 k = 68 latents"),
    ({"multi_topk": 0.125, "prefixes": (8, F)}, "give one of them"),
    ({"k_start": 10}, "k_steps=0: give both"),
    ({"k_steps": 10}, "k_start=None, .*give both"),
    ({"k_start": 3, "k_steps": 10}, r"k_start=3: need k <= k_start <= 64"),
    ({"k_start": 20, "k_steps": 10, "multi_topk": 1.0}, r"k_start <= 16"),
    ({"recall_target": 0.9}, "BatchTopK is exact"),
    (
      {"activation": "relu", "k": 0, "prefixes": (F,)},
      "is of topk and batch",
    ),
  ],
)
def test_what_cannot_be_is_refused(own, named):
  sparsity = 0.03 if own.get("activation") == "relu" else None
  with pytest.raises(errors.InputError, match=named):
    kind(**own, sparsity=sparsity)
