# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Dictionaries are written block by block, from wherever they lie."""

import dataclasses
import io

import jax
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import errors, formats, mesh, sae
from sae_jax.formats import saelens, streamed
from sae_jax.sae import init

F, D = 24, 5


def _arrays(seed=0):
  rng = np.random.default_rng(seed)
  w_FD = rng.normal(size=(F, D)).astype(np.float32)
  w_FD[3, 2] = -0.0
  return {"W_enc": w_FD, "W_dec": 2 * w_FD, "b_enc": w_FD[:, 0].copy()}


def _written(arrays, block_bytes):
  file = io.BytesIO()
  streamed.write(
    file,
    arrays,
    transposed=("W_enc",),
    check=lambda name, rows: None,
    block_bytes=block_bytes,
  )
  return file.getvalue()


def _whole(arrays):
  turned = {**arrays, "W_enc": np.ascontiguousarray(arrays["W_enc"].T)}
  return safetensors.numpy.save(turned)


# One row; three, which do not divide a part of 6 rows evenly; everything.
@pytest.mark.parametrize("rows", [1, 4, F])
def test_the_bytes_are_those_of_safetensors(rows):
  arrays = _arrays()
  assert _written(arrays, 4 * D * rows) == _whole(arrays)
  on = mesh.make(mesh.MeshConfig(data=2, latent=4))
  split = {
    name: jax.device_put(array, jax.NamedSharding(on, jax.P("latent")))
    for name, array in arrays.items()
  }
  assert _written(split, 4 * D * rows) == _whole(arrays)


def test_only_a_block_of_a_part_is_sent_between_processes():
  """What several processes run, on one: every block, and nothing larger."""
  on = mesh.make(mesh.MeshConfig(data=2, latent=4))
  w_FD = _arrays()["W_enc"]
  sharding = jax.NamedSharding(on, jax.P("latent", None))
  split_FD = jax.device_put(w_FD, sharding)
  assert streamed._copies(split_FD) == 2
  for part in range(4):
    block = streamed._fetch(split_FD, part, 2, 2)
    assert block.tobytes() == w_FD[6 * part + 2 :][:2].tobytes()
  compiled = (
    streamed._sender(sharding, 2)
    .lower(split_FD, np.int32(0), np.int32(0))
    .compile()
  )
  text = compiled.as_text() or ""
  moved = [line for line in text.splitlines() if " all-" in line]
  assert moved and all("all-reduce" in line for line in moved)
  assert all("u32[2,5]" in line for line in moved)


def test_an_export_never_holds_a_matrix_on_one_host_or_device(
  tmp_path, monkeypatch
):
  on = mesh.make(mesh.MeshConfig(latent=8))
  params = init.init_params(np.zeros(16, np.float32), 512, 0, on)
  seen = []
  read = streamed._read

  def note(part, first, count):
    seen.append(part.shape[0])
    rows = read(part, first, count)
    seen.append(len(rows))
    return rows

  monkeypatch.setattr(streamed, "_read", note)
  monkeypatch.setattr(streamed, "BLOCK_BYTES", 16 * 16 * 4)
  formats.save_sae(sae.make_sae(params, 4), tmp_path)
  assert max(seen) == 512 // 8
  loaded = safetensors.numpy.load_file(tmp_path / saelens.WEIGHTS)
  np.testing.assert_array_equal(loaded["W_dec"], params.w_dec_FD)
  np.testing.assert_array_equal(loaded["W_enc"].T, params.w_enc_FD)


def test_weights_that_are_not_finite_leave_the_old_dictionary(tmp_path):
  w_FD = _arrays()["W_enc"]

  def dictionary(w_dec_FD):
    b_F, b_D = np.zeros(F, np.float32), np.zeros(D, np.float32)
    return sae.make_sae(sae.Params(w_FD, w_dec_FD, b_F, b_D), 2)

  formats.save_sae(dictionary(w_FD), tmp_path)
  broken_FD = w_FD.copy()
  broken_FD[F - 1, 0] = np.inf
  with pytest.raises(errors.InputError, match="W_dec holds NaN or infinity"):
    formats.save_sae(dictionary(broken_FD), tmp_path)
  np.testing.assert_array_equal(
    formats.load_sae(tmp_path).params.w_dec_FD, w_FD
  )
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    "cfg.json",
    "sae_weights.safetensors",
  ]


@pytest.mark.parametrize(
  ("format", "made"),
  [
    ("saelens", {"activation": "jumprelu", "skip": True}),
    ("saelens", {"activation": "gated"}),
    ("sparsify", {"skip": True}),
    ("dictionary_learning", {"activation": "gated"}),
    ("dictionary_learning", {"activation": "jumprelu"}),
  ],
)
def test_every_kind_is_written_from_where_it_lies(
  tmp_path, kinds, monkeypatch, format, made
):
  dictionary = kinds.make(**made)
  formats.save_sae(dictionary, tmp_path / "host", format=format)
  on = mesh.make(mesh.MeshConfig(data=2, latent=4))
  split = jax.device_put(
    dictionary.params, init.params_sharding(on, dictionary.params)
  )
  monkeypatch.setattr(streamed, "BLOCK_BYTES", 16 * 24 * 4)
  formats.save_sae(
    dataclasses.replace(dictionary, params=split),
    tmp_path / "mesh",
    format=format,
  )
  for file in (tmp_path / "host").iterdir():
    there = tmp_path / "mesh" / file.name
    assert there.read_bytes() == file.read_bytes(), file.name
