# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Adapters against PEFT: written, read, merged, applied."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from sae_jax import errors
from sae_jax import lm as lm_lib
from sae_jax import mesh as mesh_lib
from sae_jax.lm import adapter, low_rank, weights

pytestmark = pytest.mark.filterwarnings(
  "ignore:`is_gradient_checkpointing` is depr"
)

# As in test_lm_families.py, where it is derived; a correction adds two
# products to a sum of eight.
RTOL = 4 * (8 * 128 * 3 / 2) ** 0.5 * 1.2e-7
TOKENS = np.arange(24).reshape(2, 12)
ALL = tuple(low_rank.TARGETS)

_forward = jax.jit(lm_lib.forward, static_argnames=("taps", "want_logits"))


def corrections(lm, targets=ALL, rank=3, first=1, scale=1.0, seed=0):
  """Random ones of the blocks from `first` on, as large as the weights."""
  rng = np.random.default_rng(seed)
  a, b = {}, {}
  for target in targets:
    path, ins = low_rank.TARGETS[target]
    weight = weights.named(lm.model).get(f"blocks.{path}")
    if weight is None:
      continue
    shape, count = weight.shape[1:], lm.layers - first

    def draw(*size, count=count):
      return jnp.asarray(rng.normal(size=(count, *size)), jnp.float32)

    a[path] = draw(rank, *shape[-ins:]) / 8
    b[path] = draw(*shape[:-ins], rank)
  return low_rank.Adapter(a=a, b=b, first=first, scale=scale)


def peft_logits(base, path):
  import peft  # takes seconds

  model = transformers.AutoModelForCausalLM.from_pretrained(
    base, dtype=torch.float32
  )
  model = peft.PeftModel.from_pretrained(model, path).eval()
  with torch.no_grad():
    return model(torch.from_numpy(TOKENS)).logits.numpy()


def off(ours, theirs):
  ours, theirs = np.asarray(ours), np.asarray(theirs)
  return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize(
  ("name", "targets", "rslora"),
  [
    pytest.param("llama", ALL, False, marks=pytest.mark.slow),
    ("gpt2", ("q", "v", "o", "down"), True),
    pytest.param("gpt2", ALL, False, marks=pytest.mark.slow),
    pytest.param("pythia", ("k", "o", "up"), True, marks=pytest.mark.slow),
    pytest.param("pythia", ALL, False, marks=pytest.mark.slow),
    pytest.param("gemma2", ALL, False, marks=pytest.mark.slow),
    pytest.param("qwen3", ALL, True, marks=pytest.mark.slow),
  ],
)
def test_peft_opens_what_is_saved(hf_pair, tmp_path, name, targets, rslora):
  pair = hf_pair(name)
  lm = pair.load()
  found = corrections(lm, targets, scale=0.5 / 3**0.5 if rslora else 0.5 / 3)
  adapter.save(
    found, lm.config, tmp_path, base=str(pair.path), alpha=0.5, rslora=rslora
  )
  theirs = peft_logits(pair.path, tmp_path)
  assert off(lm_lib.logits(lm, TOKENS), theirs) > 1000 * RTOL
  merged = lm_lib.load_lm(tmp_path, dtype=jnp.float32)
  assert off(lm_lib.logits(merged, TOKENS), theirs) < RTOL
  apart = _forward(lm.model, jnp.asarray(TOKENS), adapter=found)
  assert off(apart.logits_BTV, theirs) < RTOL
  for ours, loaded in zip(
    jax.tree.leaves(low_rank.merge(lm.model, found)),
    jax.tree.leaves(merged.model),
    strict=True,
  ):
    np.testing.assert_allclose(
      ours, loaded, rtol=0, atol=4 * 1.2e-7 * np.abs(loaded).max()
    )


@pytest.mark.parametrize(
  ("name", "change"),
  [
    ("gpt2", dict(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    pytest.param(
      "llama",
      dict(
        target_modules="all-linear",
        alpha_pattern={"q_proj": 9, "layers.1.mlp.up_proj": 1},
        rank_pattern={"v_proj": 2},
        use_rslora=True,
      ),
      marks=pytest.mark.slow,
    ),
    pytest.param(
      "llama-rope3",  # its head is not tied
      dict(target_modules=["lm_head", "o_proj"]),
      marks=pytest.mark.slow,
    ),
  ],
)
def test_what_peft_saves_is_opened(hf_pair, tmp_path, name, change):
  import peft  # takes seconds

  pair = hf_pair(name)
  model = transformers.AutoModelForCausalLM.from_pretrained(
    pair.path, dtype=torch.float32
  )
  torch.manual_seed(0)
  config = peft.LoraConfig(r=4, lora_alpha=3, init_lora_weights=False, **change)
  model = peft.get_peft_model(model, config)
  # True would add the base's own head, as PEFT does with a warning.
  model.save_pretrained(tmp_path, save_embedding_layers=False)
  theirs = peft_logits(pair.path, tmp_path)
  lm = lm_lib.load_lm(tmp_path, dtype=jnp.float32)
  assert off(lm_lib.logits(pair.load(), TOKENS), theirs) > 1000 * RTOL
  assert off(lm_lib.logits(lm, TOKENS), theirs) < RTOL


@pytest.fixture(scope="module")
def saved(hf_pair, tmp_path_factory):
  """A base llama, an adapter of it and where that is."""
  pair = hf_pair("llama")
  path = tmp_path_factory.mktemp("adapter")
  lm = pair.load()
  found = corrections(lm, ("q", "o", "up"))
  adapter.save(found, lm.config, path, base=str(pair.path), alpha=3)
  return pair, found, path


def copy_of(path, place, **changes):
  place.mkdir()
  raw = json.loads((path / adapter.CONFIG).read_text())
  (place / adapter.CONFIG).write_text(json.dumps({**raw, **changes}))
  weights_file = path / adapter.WEIGHTS
  (place / adapter.WEIGHTS).write_bytes(weights_file.read_bytes())
  return place


def test_every_device_merges_its_own_slice(saved):
  pair, _, path = saved
  mesh = mesh_lib.make(mesh_lib.MeshConfig(data=2, latent=4))
  one = lm_lib.load_lm(path, dtype=jnp.float32)
  many = lm_lib.load_lm(path, dtype=jnp.float32, mesh=mesh)
  for a, b in zip(
    jax.tree.leaves(one.model), jax.tree.leaves(many.model), strict=True
  ):
    # One product summed over `rank`, whatever the slice.
    np.testing.assert_allclose(a, b, rtol=0, atol=4 * 1.2e-7 * np.abs(a).max())
  few = lm_lib.load_lm(path, dtype=jnp.float32, layers=2)
  assert few.layers == 2
  assert one.weights_hash == few.weights_hash != pair.load().weights_hash


def test_a_merged_model_is_saved_with_its_base_s_config(saved, tmp_path):
  _, _, path = saved
  lm = lm_lib.load_lm(path, dtype=jnp.float32)
  lm_lib.save_hf(lm, tmp_path)
  again = lm_lib.load_lm(tmp_path, dtype=jnp.float32)
  assert again.config == lm.config
  for a, b in zip(
    jax.tree.leaves(lm.model), jax.tree.leaves(again.model), strict=True
  ):
    np.testing.assert_array_equal(a, b)


def test_an_adapter_of_an_adapter(saved, tmp_path):
  """A further fine-tuning starts from a merged model, and so does loading."""
  pair, found, path = saved
  lm = pair.load()
  more = corrections(lm, ("v",), first=2, seed=1, scale=2 / 3)
  adapter.save(more, lm.config, tmp_path / "two", base=str(path), alpha=2)
  expected = low_rank.merge(low_rank.merge(lm.model, found), more)
  both = lm_lib.load_lm(tmp_path / "two", dtype=jnp.float32)
  for a, b in zip(
    jax.tree.leaves(expected), jax.tree.leaves(both.model), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=0, atol=8 * 1.2e-7 * np.abs(a).max())


def test_the_base_may_lie_beside(saved, tmp_path):
  pair, _, path = saved
  (tmp_path / "base").symlink_to(pair.path)
  place = copy_of(path, tmp_path / "a", base_model_name_or_path="../base")
  assert lm_lib.load_lm(place, layers=0).path == place


@pytest.mark.parametrize(
  "hook",
  [
    "blocks.2.hook_resid_mid",
    pytest.param("blocks.1.hook_attn_out", marks=pytest.mark.slow),
    pytest.param("blocks.0.hook_mlp_out", marks=pytest.mark.slow),
  ],
)
def test_hooks_see_the_corrected_blocks(saved, hook):
  """Also those in a block that is run in part, and below the adapter."""
  pair, found, path = saved
  lm, merged = pair.load(), lm_lib.load_lm(path, dtype=jnp.float32)
  apart = _forward(
    lm.model,
    jnp.asarray(TOKENS),
    taps=(hook,),
    adapter=found,
    want_logits=False,
  )
  expected = lm_lib.activations(merged, TOKENS, (hook,))[hook]
  assert off(apart.taps[hook], expected) < RTOL


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(use_dora=True), "use_dora=True is not supported; merge the adapter"),
    (dict(bias="all"), "bias='all' is not supported"),
    (dict(modules_to_save=["lm_head"]), "modules_to_save"),
    (dict(peft_type="IA3"), "peft_type='IA3'"),
    (dict(base_model_name_or_path=""), "base_model_name_or_path is empty"),
    (dict(base_model_name_or_path="/no/such"), "/no/such: no such model"),
    (dict(base_model_name_or_path="."), "is the adapter itself"),
  ],
)
def test_adapters_that_are_refused(saved, tmp_path, changes, message):
  place = copy_of(saved[2], tmp_path / "a", **changes)
  with pytest.raises(errors.InputError, match=message):
    lm_lib.load_lm(place)


def test_an_adapter_of_another_model(saved, hf_pair, tmp_path):
  wide = hf_pair("llama-wide-tied")
  place = copy_of(
    saved[2], tmp_path / "a", base_model_name_or_path=str(wide.path)
  )
  with pytest.raises(errors.InputError, match="belongs to another model"):
    lm_lib.load_lm(place)
  gpt2 = hf_pair("gpt2")
  place = copy_of(
    saved[2], tmp_path / "b", base_model_name_or_path=str(gpt2.path)
  )
  with pytest.raises(errors.InputError, match="no tensor 'model"):
    lm_lib.load_lm(place)


def test_damaged_adapters(saved, tmp_path):
  place = copy_of(saved[2], tmp_path / "a")
  data = (place / adapter.WEIGHTS).read_bytes()
  (place / adapter.WEIGHTS).write_bytes(data[:-100])
  with pytest.raises(errors.InputError, match="the file was cut off"):
    lm_lib.load_lm(place)
  (place / adapter.WEIGHTS).unlink()
  with pytest.raises(errors.InputError, match="there is no adapter_model"):
    lm_lib.load_lm(place)
