# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A run goes on on fewer devices or more: the same rows, the same curve."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from sae_jax import mesh, metrics, sae, store, stream
from sae_jax.train import config as config_lib
from sae_jax.train import loop, optimizer

HOOK = "blocks.0.hook_resid_post"
STEPS, SAVED = 12, 6
BATCH, D = 64, 16

pytestmark = [
  pytest.mark.slow,
  pytest.mark.usefixtures("quick_compilation"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  rng = np.random.default_rng(0)
  codes_NF = rng.exponential(size=(640, 40)) * (rng.random((640, 40)) < 0.1)
  x_ND = codes_NF @ rng.normal(size=(40, D)) + rng.normal(size=D)
  path = tmp_path_factory.mktemp("elastic") / "store"
  store.write_arrays(
    path, {HOOK: x_ND.astype(np.float32)}, read_rows=16, write_rows=64
  )
  return store.open_store(path)


def _train(source, directory, sizes, sweep=()):
  """Trains on the first devices; returns the rows of every batch it took."""
  config = config_lib.TrainConfig(
    store=source.path,
    hook=HOOK,
    sae=sae.SaeConfig(latents=64, k=4, dead_after_tokens=300),
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=5),
    stream=stream.StreamConfig(batch_size=BATCH, mix_chunks=4, lanes=2),
    mesh=mesh.MeshConfig(sae=sizes[0], data=sizes[1], latent=sizes[2]),
    sweep=sweep,
    steps=STEPS,
    held_out_rows=64,
    eval_every=SAVED,
    checkpoint_every=SAVED,
    keep_checkpoints=3,
    log_every=1,
  )
  devices = jax.devices()[: int(np.prod(sizes))]
  make, take = mesh.make, stream.Stream.__next__
  taken = []

  def take_noted(self):
    x_BD = take(self)
    taken.append(jax.device_get(x_BD).tobytes())
    return x_BD

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mesh, "make", lambda sizes, _=None: make(sizes, devices))
    patch.setattr(stream.Stream, "__next__", take_noted)
    loop.train(config, source, directory)
  return taken


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
  """A run on 1 x 2 x 4 that nothing interrupted, and the rows it took."""
  directory = tmp_path_factory.mktemp("whole")
  return directory, _train(source, directory, (1, 2, 4))


def _position(directory):
  return json.loads(
    (directory / "checkpoints" / str(STEPS) / "stream" / "metadata").read_text()
  )["position"]


def _resume(source, whole, directory, sizes, sweep=()):
  """Goes on from the run's first checkpoint; returns the rows it takes."""
  place = pathlib.Path("checkpoints", str(SAVED))
  shutil.copytree(whole / place, directory / place)
  for file in whole.rglob("metrics.jsonl"):
    copy = directory / file.relative_to(whole)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, copy)
  return _train(source, directory, sizes, sweep)


def _assert_same_curves(ours, theirs):
  """Up to the order of sums, which is another one on another mesh."""
  files = [p.relative_to(theirs) for p in theirs.rglob("metrics.jsonl")]
  lines = [
    pair
    for file in files
    for pair in zip(
      metrics.read(ours / file), metrics.read(theirs / file), strict=True
    )
  ]
  for one, other in lines:
    assert one.keys() == other.keys() and one["step"] == other["step"]
    # The state is restored to the bit, so the first loss differs by the order
    # of its B·D terms: sqrt(B·D) unit roundoffs. A step later weights differ by
    # as much of an update, and so on: one more such error with each step.
    steps = max(0, one["step"] - SAVED + 1)
    error = steps * (BATCH * D) ** 0.5 * 2**-24
    for name in other:
      if not name.startswith("perf/"):
        assert one[name] == pytest.approx(other[name], rel=error, abs=0), name


# A quarter of the devices; half of them, split otherwise.
@pytest.mark.parametrize("sizes", [(1, 1, 2), (1, 4, 1)])
def test_a_checkpoint_goes_on_on_another_mesh(whole, source, tmp_path, sizes):
  directory, rows = whole
  assert _resume(source, directory, tmp_path, sizes) == rows[SAVED:]
  assert _position(tmp_path) == _position(directory)
  _assert_same_curves(tmp_path, directory)


def test_a_sweep_goes_on_on_another_mesh(source, tmp_path):
  """Two dictionaries on four devices each, then both on the same two."""
  sweep = (config_lib.MemberConfig(k=2), config_lib.MemberConfig(seed=1))
  whole, resumed = tmp_path / "whole", tmp_path / "resumed"
  rows = _train(source, whole, (2, 2, 2), sweep)
  assert _resume(source, whole, resumed, (1, 1, 2), sweep) == rows[SAVED:]
  assert _position(resumed) == _position(whole)
  assert (whole / "members" / "1" / "metrics.jsonl").exists()
  _assert_same_curves(resumed, whole)
