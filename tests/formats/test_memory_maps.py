# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Dictionaries as memory maps, for starting from one larger than a host."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from sae_jax import errors, formats, sae
from sae_jax.formats import memory_maps, saelens

F, D = 12, 5


@pytest.fixture
def saved(tmp_path):
  w_FD = np.random.default_rng(0).normal(size=(F, D)).astype(np.float32)
  params = {
    "w_enc_FD": w_FD,
    "w_dec_FD": -w_FD,
    "b_enc_F": w_FD[:, 0].copy(),
    "b_dec_D": w_FD[0].copy(),
  }
  formats.save_sae(
    sae.make_sae(sae.Params(**params), 2, {"hook_name": "h"}), tmp_path / "sae"
  )
  return tmp_path


def test_a_mapped_dictionary_is_the_loaded_one(saved):
  mapped, loaded = formats.map_sae(saved), formats.load_sae(saved)
  assert isinstance(mapped.params.w_dec_FD, np.memmap)
  assert mapped.k == loaded.k
  assert mapped.metadata["hook_name"] == loaded.metadata["hook_name"] == "h"
  for name in ("w_enc_FD", "w_dec_FD", "b_enc_F", "b_dec_D"):
    np.testing.assert_array_equal(
      getattr(mapped.params, name), getattr(loaded.params, name)
    )


def test_every_float_type_is_mapped(tmp_path):
  x_N = np.arange(6).reshape(2, 3)
  tensors = {
    str(dtype): x_N.astype(dtype)
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
  }
  safetensors.numpy.save_file(tensors, tmp_path / "t")
  mapped = memory_maps.tensors(tmp_path / "t")
  assert mapped.keys() == tensors.keys()
  for name, array in tensors.items():
    assert mapped[name].dtype == array.dtype
    np.testing.assert_array_equal(mapped[name], array)


def test_headers_that_make_no_sense_are_refused(tmp_path):
  file = tmp_path / "t"
  whole = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
  for wrong in (
    [],
    {"w": None},
    {"w": whole | {"shape": [2, 4]}},
    {"w": whole | {"shape": [-2, -3]}},
    {"w": whole | {"shape": [2, 3.0]}},
    {"w": whole | {"data_offsets": [-24, 0]}},
    {"w": whole | {"data_offsets": [0, 24, 48]}},
    {"w": {"dtype": "F32"}},
  ):
    text = json.dumps(wrong).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
    with pytest.raises(errors.InputError, match="not a complete safetensors"):
      memory_maps.tensors(file)
  safetensors.numpy.save_file({"w": np.zeros((0, 3), np.float32)}, file)
  assert memory_maps.tensors(file)["w"].shape == (0, 3)


def test_files_that_are_not_whole_are_refused(saved, tmp_path):
  file = saved / "sae" / saelens.WEIGHTS
  data = file.read_bytes()
  for part in (data[:-4], data[:40]):
    file.write_bytes(part)
    with pytest.raises(errors.InputError, match="not a complete safetensors"):
      formats.map_sae(saved)
  safetensors.numpy.save_file({"W_enc": np.zeros(3, np.int32)}, file)
  with pytest.raises(errors.InputError, match="W_enc is of type I32"):
    formats.map_sae(saved)
  file.unlink()
  with pytest.raises(errors.InputError, match="no such file"):
    memory_maps.tensors(file)
