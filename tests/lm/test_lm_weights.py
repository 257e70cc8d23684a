# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading checkpoints: slices only, sharded files, damage, odd names."""

import json
import math
import shutil

import jax.numpy as jnp
import lm_cases
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from sae_jax import errors
from sae_jax import lm as lm_lib
from sae_jax import mesh as mesh_lib
from sae_jax.lm import config, hf_defaults, source, weights

TOKENS_BT = np.random.default_rng(0).integers(0, 208, (2, 8))


class CountingSource:
  """Notes how many elements of every tensor are read."""

  def __init__(self, path):
    self._source = source.SafetensorsSource(path)
    self.read_sizes: dict[str, list[int]] = {}

  def names(self):
    return self._source.names()

  def shape(self, name):
    return self._source.shape(name)

  def read(self, name, index):
    value = self._source.read(name, index)
    self.read_sizes.setdefault(name, []).append(value.size)
    return value


@pytest.fixture
def copied(hf_pair, tmp_path):
  """A copy of the llama that a test may spoil, and its tensors."""
  path = tmp_path / "model"
  shutil.copytree(hf_pair("llama").path, path)
  return path, safetensors.numpy.load_file(path / "model.safetensors")


def _save(path, tensors):
  safetensors.numpy.save_file(tensors, path / "model.safetensors")


def _hidden(path, **kwargs):
  lm = lm_lib.load_lm(path, dtype=jnp.float32, **kwargs)
  return np.asarray(lm_lib.logits(lm, TOKENS_BT))


@pytest.mark.parametrize("name", ["llama", "gpt2", "pythia"])
def test_every_device_reads_only_its_slice(hf_pair, name):
  path = hf_pair(name).path
  raw = json.loads((path / "config.json").read_text())
  c = config.from_hf(raw, place="")
  counting = CountingSource(path)
  mesh = mesh_lib.make(mesh_lib.MeshConfig(data=4, latent=2))
  weights.load_decoder(
    c, counting, mesh, jnp.dtype("float32"), layers=2, place=""
  )
  read = counting.read_sizes
  # Only two of three blocks, and neither the final norm nor the head.
  assert not [n for n in read if ".2." in n]
  assert not [n for n in read if "lm_head" in n or "embed_out" in n]
  assert not [
    n
    for n in read
    if n.endswith(
      ("ln_f.weight", "final_layer_norm.weight", "model.norm.weight")
    )
  ]
  # The share of every split matrix that one of two devices needs.
  halves = ("q_proj", "k_proj", "o_proj", "up_proj", "down_proj", "c_fc",
            "c_proj", "h_to_4h.weight", "4h_to_h.weight",
            "dense.weight")  # fmt: skip
  seen = 0
  for tensor, sizes in read.items():
    if any(h in tensor for h in halves) and not tensor.endswith("bias"):
      seen += 1
      assert set(sizes) == {math.prod(counting.shape(tensor)) // 2}, tensor
    if "c_attn.weight" in tensor or "query_key_value.weight" in tensor:
      seen += 1
      share = 6 if "c_attn" in tensor else 2  # q, k, v by column; by row
      assert set(sizes) == {math.prod(counting.shape(tensor)) // share}
  assert seen


def test_sharded_files_with_an_index(copied):
  path, tensors = copied
  expected = _hidden(path)
  (path / "model.safetensors").unlink()
  names = sorted(tensors)
  mapped = {}
  for i in range(3):
    part = {name: tensors[name] for name in names[i::3]}
    file = f"model-0000{i + 1}-of-00003.safetensors"
    safetensors.numpy.save_file(part, path / file)
    mapped |= dict.fromkeys(part, file)
  index = path / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": mapped}))
  np.testing.assert_array_equal(_hidden(path), expected)
  (path / "model-00002-of-00003.safetensors").unlink()
  with pytest.raises(errors.InputError, match="model-00002-of-00003"):
    _hidden(path)


def test_bfloat16_and_float16_files(copied):
  path, tensors = copied
  for dtype in (torch.bfloat16, torch.float16):
    rounded = {k: torch.from_numpy(v).to(dtype) for k, v in tensors.items()}
    safetensors.torch.save_file(rounded, path / "model.safetensors")
    ours = _hidden(path)
    _save(path, {k: v.float().numpy() for k, v in rounded.items()})
    np.testing.assert_array_equal(ours, _hidden(path))


@pytest.mark.parametrize(
  ("rename", "name"),
  [
    (lambda n: f"language_model.{n}", "llama"),
    (lambda n: n.replace("model.", "model.language_model.", 1), "llama"),
    (lambda n: n.removeprefix("transformer."), "gpt2"),
  ],
  ids=["multimodal-4", "multimodal-5", "openai-gpt2"],
)
def test_prefixes_of_other_checkpoints(hf_pair, tmp_path, rename, name):
  pair = hf_pair(name)
  expected = _hidden(pair.path)
  shutil.copytree(pair.path, tmp_path / "model")
  file = tmp_path / "model" / "model.safetensors"
  tensors = safetensors.numpy.load_file(file)
  tensors = {rename(key): value for key, value in tensors.items()}
  safetensors.numpy.save_file(tensors, file)
  np.testing.assert_array_equal(_hidden(tmp_path / "model"), expected)


def test_a_missing_tensor_is_named(copied):
  path, tensors = copied
  del tensors["model.layers.1.mlp.up_proj.weight"]
  _save(path, tensors)
  with pytest.raises(errors.InputError, match=r"layers\.1\.mlp\.up_proj"):
    _hidden(path)


def test_a_tensor_that_the_config_leaves_out_is_refused(copied):
  path, tensors = copied
  name = "model.layers.0.self_attn.q_proj.bias"
  tensors[name] = np.zeros(64, np.float32)
  _save(path, tensors)
  with pytest.raises(errors.InputError, match=r"q_proj\.bias"):
    _hidden(path)
  # Constants that old versions of transformers stored are no weights.
  del tensors[name]
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8)
  _save(path, tensors)
  _hidden(path)


def test_weights_of_another_size_are_refused(copied):
  path, tensors = copied
  name = "model.embed_tokens.weight"
  tensors[name] = tensors[name][:-1].copy()
  _save(path, tensors)
  with pytest.raises(errors.InputError, match=r"shape \(207, 64\)"):
    _hidden(path)


def test_a_file_that_was_cut_off_is_refused(copied):
  path, _ = copied
  file = path / "model.safetensors"
  whole = file.read_bytes()
  for length in (4, 100, len(whole) - 1):
    file.write_bytes(whole[:length])
    with pytest.raises(errors.InputError, match="download it again"):
      _hidden(path)


def test_the_hash_is_of_the_weights_alone(hf_pair, copied, tmp_path):
  path, tensors = copied
  hashed = hf_pair("llama").load().weights_hash
  assert lm_lib.load_lm(path, layers=1).weights_hash == hashed
  tensors["model.norm.weight"] = tensors["model.norm.weight"].copy()
  tensors["model.norm.weight"][3] += 1e-3
  _save(path, tensors)
  assert lm_lib.load_lm(path, layers=1).weights_hash != hashed


def test_large_files_are_hashed_by_samples(tmp_path, monkeypatch):
  monkeypatch.setattr(source, "_HASH_WHOLE_BELOW", 2**10)
  monkeypatch.setattr(source, "_HASH_SAMPLE_BYTES", 2**12)
  file = tmp_path / "a.safetensors"
  content = np.random.default_rng(0).bytes(2**18)
  file.write_bytes(content)
  hashed = source.hash_files([file])
  file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  assert source.hash_files([file]) != hashed


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda p: p / "nowhere", "no such model directory"),
    (lambda p: p / "nowhere.gguf", "no such model directory"),
    (lambda p: p, "no config.json"),
    (lambda p: "nobody/no-such-model", "Hugging Face hub"),
    (lambda p: "not a hub id!", "Hugging Face hub"),
  ],
)
def test_a_model_that_is_not_there(tmp_path, make, message):
  with pytest.raises(errors.InputError, match=message):
    lm_lib.load_lm(make(tmp_path))


def test_a_directory_without_weights_or_config(hf_pair, tmp_path):
  config_file = hf_pair("llama").path / "config.json"
  (tmp_path / "model.gguf").write_bytes(b"")
  with pytest.raises(errors.InputError, match=r"did you mean .*model\.gguf"):
    lm_lib.load_lm(tmp_path)
  shutil.copy(config_file, tmp_path)
  with pytest.raises(errors.InputError, match=r"no \*\.safetensors"):
    lm_lib.load_lm(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(errors.InputError, match="not valid JSON"):
    lm_lib.load_lm(tmp_path)


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    (dict(layers=4), "has 3 layers"),
    (dict(layers=-1), "has 3 layers"),
    (dict(dtype=jnp.float16), "give bfloat16 or float32"),
  ],
)
def test_wrong_arguments(hf_pair, kwargs, message):
  with pytest.raises(errors.InputError, match=message):
    hf_pair("llama").load(**kwargs)


def test_stop_tokens_come_from_the_generation_config(copied):
  path, _ = copied
  generation = path / "generation_config.json"
  generation.write_text(json.dumps({"eos_token_id": [7, 9]}))
  assert lm_lib.load_lm(path, layers=0).config.eos_ids == (7, 9)


def test_cases_are_of_every_family():
  classes = {class_name for class_name, _ in lm_cases.CASES.values()}
  assert len(classes) == len(hf_defaults.DEFAULTS)
