# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""From the first state to the export, a device only ever has its own rows."""

import jax
import numpy as np
import pytest
import tensorstore as ts

from sae_jax import checkpoint, formats, mesh, sae
from sae_jax.formats import streamed
from sae_jax.train import optimizer as optimizer_lib
from sae_jax.train import state as state_lib

F, D = 512, 16

CONFIG = sae.SaeConfig(latents=F, k=4)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _optimizer():
  return optimizer_lib.make_optimizer(
    optimizer_lib.OptimizerConfig(), latents=F, steps=10
  )


def _new(on, dictionary=None):
  return state_lib.init_state(
    CONFIG,
    _optimizer(),
    sample_ND=np.random.default_rng(0).normal(size=(32, D)),
    mean_square_norm=float(D),
    total_variance=float(D),
    seed=0,
    mesh=on,
    dictionary=dictionary,
  )


@pytest.fixture
def copied(monkeypatch):
  """Bytes of every array of a device that is copied to the host."""
  sizes = []
  plain = np.asarray

  def asarray(array, *args, **kwargs):
    found = plain(array, *args, **kwargs)
    if isinstance(array, jax.Array):
      sizes.append(found.nbytes)
    return found

  monkeypatch.setattr(np, "asarray", asarray)
  return sizes


def _largest_on_a_device(before):
  """Bytes of the largest buffer that was not there before."""
  return max(
    shard.data.nbytes
    for array in jax.live_arrays()
    if id(array) not in before
    for shard in array.addressable_shards
  )


def test_no_host_or_device_ever_has_a_whole_matrix(
  tmp_path, copied, monkeypatch
):
  on = mesh.make(mesh.MeshConfig(data=2, latent=4))
  own = F * D * 4 // 4  # bytes of a matrix that a device has
  before = {id(array) for array in jax.live_arrays()}
  state = _new(on)
  assert _largest_on_a_device(before) == own
  assert not copied

  checkpoints = checkpoint.Checkpoints(tmp_path / "checkpoints")
  checkpoints.save(3, state, {})
  checkpoints.wait()
  assert max(copied) <= own
  abstract = state_lib.abstract_state(CONFIG, _optimizer(), D, on)
  found = checkpoints.restore_latest(abstract)
  assert found is not None
  restored, _ = found
  checkpoints.close()
  assert _largest_on_a_device(before) == own
  for ours, theirs in zip(
    jax.tree.leaves(restored), jax.tree.leaves(state), strict=True
  ):
    assert ours.sharding == theirs.sharding
    np.testing.assert_array_equal(jax.device_get(ours), jax.device_get(theirs))

  copied.clear()
  monkeypatch.setattr(streamed, "BLOCK_BYTES", 512)
  formats.save_sae(state_lib.to_sae(restored, CONFIG), tmp_path / "sae")
  assert max(copied) == 512

  copied.clear()
  before = {id(array) for array in jax.live_arrays()}
  again = _new(on, formats.map_sae(tmp_path / "sae"))
  assert _largest_on_a_device(before) == own
  assert max(copied, default=0) == 0
  np.testing.assert_array_equal(
    jax.device_get(again.params.w_enc_FD), jax.device_get(state.params.w_enc_FD)
  )


def _chunk_rows(directory, name):
  spec = {
    "driver": "zarr",
    "kvstore": {"driver": "ocdbt", "base": f"file://{directory}/"},
    "path": name,
  }
  return ts.open(spec, read=True).result().chunk_layout.read_chunk.shape[0]


def test_a_checkpoint_is_written_in_chunks_that_any_mesh_can_read(
  tmp_path, monkeypatch
):
  """However few devices saved it, none of a thousand reads a whole matrix."""
  monkeypatch.setattr(checkpoint, "_CHUNK_BYTES", F * D * 4 // 8)
  on = mesh.single()
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, _new(on), {})
  checkpoints.close()
  saved = tmp_path / "1" / "state"
  assert _chunk_rows(saved, "params.w_enc_FD") == F // 8
  assert _chunk_rows(saved, "tokens_since_fired_F") == F
