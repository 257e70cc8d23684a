# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Models written as Hugging Face directories and opened again."""

import json

import jax.numpy as jnp
import lm_cases
import numpy as np
import pytest
import torch
import transformers

from sae_jax import errors
from sae_jax import lm as lm_lib
from sae_jax import mesh as mesh_lib
from sae_jax.lm import save, weights

# One of each way to store a weight; the others are slow tests.
_QUICK = ("llama-wide-tied", "gpt2", "pythia")


def assert_same(one, two):
  assert one.config == two.config
  a, b = weights.named(one.model), weights.named(two.model)
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(np.asarray(a[name]), np.asarray(b[name]))


def open_in_torch(path):
  model, found = transformers.AutoModelForCausalLM.from_pretrained(
    path, output_loading_info=True, attn_implementation="eager"
  )
  assert not any(found.values()), found  # missing, unexpected, mismatched
  return model.eval()


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in _QUICK else pytest.mark.slow)
    for name in lm_cases.CASES
  ],
)
def test_what_is_saved_is_what_was_loaded(hf_pair, tmp_path, name):
  pair = hf_pair(name)
  lm = pair.load()
  lm_lib.save_hf(lm, tmp_path)
  assert_same(pair.load(), lm_lib.load_lm(tmp_path, dtype=jnp.float32))
  theirs = open_in_torch(tmp_path)
  assert type(theirs) is type(pair.torch)
  tokens = torch.arange(24).reshape(2, 12)
  with torch.no_grad():
    assert torch.equal(theirs(tokens).logits, pair.torch(tokens).logits)


def test_the_dtype_is_that_of_the_model(hf_pair, tmp_path):
  lm = hf_pair("gpt2").load(dtype=jnp.bfloat16)
  lm_lib.save_hf(lm, tmp_path)
  assert_same(lm, lm_lib.load_lm(tmp_path, dtype=jnp.bfloat16))
  assert open_in_torch(tmp_path).dtype == torch.bfloat16


def test_a_model_on_a_mesh_is_saved_whole(hf_pair, tmp_path):
  pair = hf_pair("gpt2")
  mesh = mesh_lib.make(mesh_lib.MeshConfig(data=2, latent=4))
  lm_lib.save_hf(pair.load(), tmp_path / "one")
  lm_lib.save_hf(pair.load(mesh=mesh), tmp_path / "many")
  one, many = (
    {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
    for name in ("one", "many")
  )
  assert one == many


def test_large_models_are_cut_into_files(hf_pair, tmp_path, monkeypatch):
  pair = hf_pair("llama-wide-tied")
  lm = pair.load()
  monkeypatch.setattr(save, "_SHARD_BYTES", 200_000)
  lm_lib.save_hf(lm, tmp_path)
  files = sorted(p.name for p in tmp_path.glob("*.safetensors"))
  assert len(files) > 2
  index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
  assert set(index["weight_map"].values()) == set(files)
  sizes = [p.stat().st_size for p in tmp_path.glob("*.safetensors")]
  assert max(sizes) < 200_000 + 4096
  assert_same(lm, lm_lib.load_lm(tmp_path, dtype=jnp.float32))
  open_in_torch(tmp_path)
  # A smaller model over it leaves none of these behind.
  monkeypatch.undo()
  lm_lib.save_hf(lm, tmp_path)
  assert [p.name for p in tmp_path.glob("*.safetensors*")] == [
    "model.safetensors"
  ]
  assert_same(lm, lm_lib.load_lm(tmp_path, dtype=jnp.float32))


def test_a_model_is_saved_over_itself(hf_pair, tmp_path):
  """Its files are memory-mapped only while it is loaded."""
  lm = hf_pair("gpt2").load()
  lm_lib.save_hf(lm, tmp_path)
  again = lm_lib.load_lm(tmp_path, dtype=jnp.float32)
  lm_lib.save_hf(again, tmp_path)
  assert_same(lm, lm_lib.load_lm(tmp_path, dtype=jnp.float32))


def test_a_config_can_be_given(hf_pair, tmp_path):
  """For models that were not loaded from anywhere."""
  pair = hf_pair("gpt2")
  raw = json.loads((pair.path / "config.json").read_text())
  lm_lib.save_hf(pair.load(), tmp_path, hf_config={**raw, "summary": "new"})
  saved = json.loads((tmp_path / "config.json").read_text())
  assert saved["summary"] == "new"
  assert saved["architectures"] == ["GPT2LMHeadModel"]


def test_the_text_of_a_multimodal_config(hf_pair, tmp_path):
  """gemma3's text model is saved as a text model."""
  lm = hf_pair("gpt2").load()  # any weights: only the config is looked at
  raw = {"model_type": "gemma3", "text_config": {"hidden_size": 8}}
  made = save._config(lm, raw, "float32")
  assert made["hidden_size"] == 8 and "text_config" not in made


def test_part_of_a_model_is_not_saved(hf_pair, tmp_path):
  lm = hf_pair("gpt2").load(layers=1)
  with pytest.raises(errors.InputError, match="only 1 of 3 layers are loaded"):
    lm_lib.save_hf(lm, tmp_path / "part")
  assert not (tmp_path / "part").exists()


def test_a_directory_that_cannot_be_made(hf_pair, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.InputError, match="cannot make this directory"):
    lm_lib.save_hf(hf_pair("gpt2").load(), tmp_path / "file" / "model")
