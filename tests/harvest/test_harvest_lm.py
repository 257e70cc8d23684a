# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Harvests of a small random llama and its tokenizer from disk."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
import transformers
from safetensors import numpy as safetensors_numpy
from tokenizers import models, pre_tokenizers, processors

from sae_jax import errors, harvest, lm, store
from sae_jax import mesh as mesh_lib
from sae_jax.lm import text
from sae_jax.store import verify

WORDS = [f"w{n}" for n in range(40)]
WIDTH, MLP, LAYERS, HEADS = 16, 24, 3, 2


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
  path = tmp_path_factory.mktemp("model")
  vocab = {token: n for n, token in enumerate(["<s>", "</s>", "<u>", *WORDS])}
  write_tokenizer(path, vocab)
  rng = np.random.default_rng(0)

  def random(*shape):
    return rng.standard_normal(shape).astype(np.float32) / shape[-1] ** 0.5

  tensors = {
    "model.embed_tokens.weight": 4 * random(len(vocab), WIDTH),
    "model.norm.weight": np.ones(WIDTH, np.float32),
    "lm_head.weight": random(len(vocab), WIDTH),
  }
  for layer in range(LAYERS):
    block = f"model.layers.{layer}."
    for name in ("q", "k", "v", "o"):
      tensors[f"{block}self_attn.{name}_proj.weight"] = random(WIDTH, WIDTH)
    for name, shape in (
      ("gate", (MLP, WIDTH)),
      ("up", (MLP, WIDTH)),
      ("down", (WIDTH, MLP)),
    ):
      tensors[f"{block}mlp.{name}_proj.weight"] = random(*shape)
    for name in ("input_layernorm", "post_attention_layernorm"):
      tensors[f"{block}{name}.weight"] = np.ones(WIDTH, np.float32)
  safetensors_numpy.save_file(tensors, path / "model.safetensors")
  config = transformers.LlamaConfig(
    vocab_size=len(vocab),
    hidden_size=WIDTH,
    intermediate_size=MLP,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    num_key_value_heads=HEADS,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=1,
    tie_word_embeddings=False,
  )
  (path / "config.json").write_text(json.dumps(config.to_dict()))
  return path


def write_tokenizer(path, vocab):
  word_level = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<u>"))
  word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  word_level.post_processor = processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 0)]
  )
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=word_level,
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<u>",
  ).save_pretrained(path)


@pytest.fixture
def config(model_path, tmp_path):
  rng = np.random.default_rng(1)
  lines = [
    json.dumps({"text": " ".join(rng.choice(WORDS, rng.integers(1, 40)))})
    for _ in range(60)
  ]
  (tmp_path / "text.jsonl").write_text("\n".join(lines))
  return harvest.HarvestConfig(
    model=str(model_path),
    hooks=("model.layers.1", "blocks.0.hook_mlp_out"),
    text=text.TextConfig(path=str(tmp_path / "text.jsonl"), context_length=20),
    rows=600,
    batch_size=8,
    dtype="float32",
    read_rows=16,
    write_rows=128,
    mesh=mesh_lib.MeshConfig(data=4, latent=2),
  )


def test_the_tokens_of_a_store_give_the_same_model_the_same_rows(
  config, tmp_path
):
  harvest.harvest(dataclasses.replace(config, lanes=2), tmp_path / "base")
  again = harvest.HarvestConfig(
    model=config.model,
    hooks=config.hooks,
    tokens_of=str(tmp_path / "base"),
    dtype=config.dtype,
    mesh=config.mesh,
  )
  harvest.harvest(again, tmp_path / "again")
  one, two = (store.open_store(tmp_path / n) for n in ("base", "again"))
  assert store.paired(one, two)
  for hook in one.hooks:
    np.testing.assert_array_equal(
      one.read(hook, 0, one.rows), two.read(hook, 0, one.rows)
    )
  assert store.difference(two, one).stats(hook).mean_square_norm == 0


def test_tokens_of_another_tokenizer_are_refused(config, model_path, tmp_path):
  harvest.harvest(config, tmp_path / "base")
  other = tmp_path / "other-model"
  shutil.copytree(model_path, other)
  words = ["<s>", "</s>", "<u>", *reversed(WORDS)]
  write_tokenizer(other, {token: n for n, token in enumerate(words)})
  again = harvest.HarvestConfig(
    model=str(other), hooks=config.hooks, tokens_of=str(tmp_path / "base")
  )
  with pytest.raises(errors.InputError) as error:
    harvest.harvest(again, tmp_path / "s")
  known = store.open_store(tmp_path / "base").manifest.tokenizer_hash
  assert known[:12] in str(error.value)
  assert str(model_path) in str(error.value) and str(other) in str(error.value)


@pytest.mark.parametrize("packed", [True, False])
def test_rows_are_the_activations_of_the_model(config, tmp_path, packed):
  config = dataclasses.replace(
    config, lanes=2, text=dataclasses.replace(config.text, packed=packed)
  )
  harvest.harvest(config, tmp_path / "s")
  source = store.open_store(tmp_path / "s")
  names = ("blocks.0.hook_mlp_out", "blocks.1.hook_resid_post")
  assert set(source.hooks) == set(names) and source.rows == 600
  model = lm.load_lm(config.model, dtype=jnp.float32)
  rows_N2 = source.positions(0, 600)
  x = {name: source.read(name, 0, 600) for name in names}
  for document in np.unique(rows_N2[:, 0])[::4]:
    tokens_T = source.document(document)
    expected = lm.activations(model, tokens_T[None], names)
    (at,) = np.nonzero(rows_N2[:, 0] == document)
    positions = rows_N2[at, 1]
    assert not set(tokens_T[positions]) & model.tokenizer.special_ids
    for name in names:
      # Stored as bfloat16: half a unit in the last place is 2^-9; the rest is
      # float32 noise of another batch shape.
      np.testing.assert_allclose(
        x[name][at].astype(np.float32),
        np.asarray(expected[name])[0, positions],
        rtol=2**-8,
        atol=1e-5,
      )
  assert verify.verify(source.path) == []
  manifest = source.manifest
  assert manifest.weights_hash == model.weights_hash
  assert manifest.tokenizer_hash == model.tokenizer.hash
  assert manifest.prepends_bos and not manifest.chat_template
  assert manifest.dropped["bos"] > 0


def test_a_second_harvest_does_nothing_and_other_weights_are_refused(
  config, tmp_path, model_path
):
  out = tmp_path / "s"
  first = harvest.harvest(config, out)
  assert harvest.harvest(config, out) == first
  other = tmp_path / "other"
  other.mkdir()
  for file in model_path.iterdir():
    (other / file.name).write_bytes(file.read_bytes())
  tensors = safetensors_numpy.load_file(other / "model.safetensors")
  tensors["model.embed_tokens.weight"][5, 5] += 1
  safetensors_numpy.save_file(tensors, other / "model.safetensors")
  with pytest.raises(errors.InputError, match="weights_hash"):
    harvest.harvest(dataclasses.replace(config, model=str(other)), out)


def test_an_interrupted_harvest_ends_with_the_same_bytes(
  config, tmp_path, monkeypatch
):
  config = dataclasses.replace(config, lanes=2, write_rows=64)
  harvest.harvest(config, tmp_path / "whole")
  plain = lm.activations
  for after in (1, 2, 5):
    left = iter(range(after))

    def fail(*args, **kwargs):
      if next(left, None) is None:  # noqa: B023
        raise RuntimeError("the device is lost")
      return plain(*args, **kwargs)

    monkeypatch.setattr(lm, "activations", fail)
    with pytest.raises(RuntimeError, match="the device is lost"):
      harvest.harvest(config, tmp_path / "s")
  monkeypatch.undo()
  harvest.harvest(config, tmp_path / "s")
  whole, ours = (
    {
      str(p.relative_to(root)): p.read_bytes()
      for p in root.rglob("*")
      if p.is_file()
    }
    for root in (tmp_path / "whole", tmp_path / "s")
  )
  assert ours == whole


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"hooks": ("blocks.9.hook_resid_post",)}, r"3 layers.*blocks\.9"),
    ({"hooks": ("blocks.1.hook_resid",)}, "unknown.*resid_post"),
    ({"hooks": ("model.layers.1", "blocks.1.hook_resid_post")}, "there twice"),
    ({"model": "/nowhere/at/all"}, "/nowhere/at/all: no such model"),
    ({"mesh": mesh_lib.MeshConfig(data=3, latent=1)}, "needs 3 devices"),
  ],
)
def test_wrong_inputs_leave_nothing(config, tmp_path, fields, message):
  with pytest.raises(errors.InputError, match=message):
    harvest.harvest(dataclasses.replace(config, **fields), tmp_path / "s")
  assert not (tmp_path / "s").exists()


def test_empty_text(config, tmp_path):
  (tmp_path / "text.jsonl").write_text("\n")
  with pytest.raises(errors.InputError, match=r"text\.jsonl: no text in it"):
    harvest.harvest(config, tmp_path / "s")
  assert not any(p.is_file() for p in (tmp_path / "s").rglob("*"))
