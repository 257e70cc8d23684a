# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A run goes on on fewer devices or more: the same rows, the same curve."""

import json
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


def _train(source, directory, sizes):
  """Trains on the first devices; returns the rows of every batch it took."""
  config = config_lib.TrainConfig(
    store=source.path,
    hook=HOOK,
    sae=sae.SaeConfig(latents=64, k=4, dead_after_tokens=300),
    optimizer=optimizer.OptimizerConfig(learning_rate=1e-2, warmup_steps=5),
    stream=stream.StreamConfig(batch_size=BATCH, mix_chunks=4, lanes=2),
    mesh=mesh.MeshConfig(sae=sizes[0], data=sizes[1], latent=sizes[2]),
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


# The control; a quarter of the devices; half of them, split otherwise; one.
@pytest.mark.parametrize(
  "sizes",
  [
    (1, 2, 4),
    (1, 1, 2),
    (1, 4, 1),
    (1, 1, 1),
  ],
  ids=lambda sizes: "x".join(map(str, sizes)),
)
def test_a_checkpoint_goes_on_on_another_mesh(whole, source, tmp_path, sizes):
  directory, rows = whole
  shutil.copytree(
    directory / "checkpoints" / str(SAVED),
    tmp_path / "checkpoints" / str(SAVED),
  )
  shutil.copy(directory / "metrics.jsonl", tmp_path)
  assert _train(source, tmp_path, sizes) == rows[SAVED:]
  assert _position(tmp_path) == _position(directory)
  lines = zip(
    metrics.read(tmp_path / "metrics.jsonl"),
    metrics.read(directory / "metrics.jsonl"),
    strict=True,
  )
  for ours, theirs in lines:
    assert ours.keys() == theirs.keys() and ours["step"] == theirs["step"]
    # The state is restored to the bit, so the first loss differs by the order
    # of its B·D terms: sqrt(B·D) unit roundoffs. A step later weights differ by
    # as much of an update, and so on: one more such error with each step.
    steps = max(0, ours["step"] - SAVED + 1)
    error = steps * (BATCH * D) ** 0.5 * 2**-24
    for name in theirs:
      if name.startswith("perf/"):
        continue
      close = 0 if sizes == (1, 2, 4) else error
      assert ours[name] == pytest.approx(theirs[name], rel=close, abs=0), name
