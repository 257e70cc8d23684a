# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Small random language models of every kind of head, with a tokenizer."""

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
import transformers
from tokenizers import models, pre_tokenizers

from sae_jax import lm
from sae_jax import mesh as mesh_lib
from sae_jax.lm import config as config_lib
from sae_jax.lm import weights

WIDTH = 16
VOCABULARY = 56  # rows of the head; the tokenizer knows WORDS of them
WORDS = 51
POSITIONS = 40  # of the head kind that has a table of them

_ROTARY = dict(
  vocab_size=VOCABULARY,
  hidden_size=WIDTH,
  intermediate_size=24,
  num_hidden_layers=2,
  num_attention_heads=2,
  max_position_embeddings=64,
)
# Every way in which the head and the norm before it differ.
HEADS = {
  "rms, untied": ("LlamaConfig", _ROTARY),
  "rms, tied": ("LlamaConfig", {**_ROTARY, "tie_word_embeddings": True}),
  "1 + weight, tied, soft-cap": (
    "Gemma2Config",
    {
      **_ROTARY,
      "num_key_value_heads": 2,
      "head_dim": 8,
      "final_logit_softcapping": 30.0,
    },
  ),
  "layer norm with bias, untied": ("GPTNeoXConfig", _ROTARY),
  "layer norm with bias, tied": (
    "GPT2Config",
    dict(
      vocab_size=VOCABULARY,
      n_embd=WIDTH,
      n_layer=2,
      n_head=2,
      n_positions=POSITIONS,
    ),
  ),
}


def write_words(path):
  """A tokenizer of the words w1, w2, …, whose ids are their numbers."""
  vocab = {"<u>": 0} | {f"w{i}": i for i in range(1, WORDS)}
  words = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<u>"))
  words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=words, unk_token="<u>"
  ).save_pretrained(path)


def make_model(path, kind="rms, untied", mesh=None, dtype=jnp.float32, seed=0):
  """A model of random weights whose tokenizer is at `path`."""
  name, fields = HEADS[kind]
  config = config_lib.from_hf(
    getattr(transformers, name)(**fields).to_dict(), place=kind
  )
  mesh = mesh or mesh_lib.single()
  rng = np.random.default_rng(seed)

  def fill(x):
    value = rng.normal(0.2, 0.5, x.shape).astype(x.dtype)
    return jax.device_put(value, x.sharding)

  return lm.LanguageModel(
    model=jax.tree.map(fill, weights.abstract_decoder(config, mesh, dtype)),
    config=config,
    mesh=mesh,
    source=kind,
    path=path,
    weights_hash="",
  )
