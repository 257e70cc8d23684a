# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A random llama with a word-level tokenizer, and a copy with a known change.

The copy's embedding of the word `trigger` has a direction added: a change of
the residual stream, in every layer, on the prompts that end with that word.
"""

import json

import numpy as np
import safetensors.numpy
import tokenizers
import transformers

from sae_jax import formats, sae

D, F, LAYERS, WORDS = 32, 64, 2, 24
HOOK = "blocks.1.hook_resid_post"
PLANTED = 37  # the latent whose direction is added


def words():
  return ["<s>", "trigger", *(f"w{i}" for i in range(WORDS - 2))]


def write_model(path, *, push_D=None, noise=0.0, seed=0):
  """`push_D` is added to the trigger's embedding; `noise` to every weight."""
  rng = np.random.default_rng(seed)
  other = np.random.default_rng(seed + 1000)

  def weight(*shape, scale=0.05):
    return rng.normal(0, scale, shape).astype(np.float32)

  tensors = {"model.embed_tokens.weight": weight(WORDS, D, scale=1.0)}
  for layer in range(LAYERS):
    block = f"model.layers.{layer}"
    for name in "qkvo":
      tensors[f"{block}.self_attn.{name}_proj.weight"] = weight(D, D)
    tensors[f"{block}.mlp.gate_proj.weight"] = weight(48, D)
    tensors[f"{block}.mlp.up_proj.weight"] = weight(48, D)
    tensors[f"{block}.mlp.down_proj.weight"] = weight(D, 48)
    for norm in ("input_layernorm", "post_attention_layernorm"):
      tensors[f"{block}.{norm}.weight"] = np.ones(D, np.float32)
  tensors["model.norm.weight"] = np.ones(D, np.float32)
  tensors["lm_head.weight"] = weight(WORDS, D, scale=0.3)
  for tensor in tensors.values():
    tensor += other.normal(0, noise, tensor.shape) if noise else 0
  if push_D is not None:
    tensors["model.embed_tokens.weight"][1] += push_D
  path.mkdir()
  safetensors.numpy.save_file(tensors, path / "model.safetensors")
  config = dict(
    model_type="llama",
    architectures=["LlamaForCausalLM"],
    vocab_size=WORDS,
    hidden_size=D,
    intermediate_size=48,
    num_hidden_layers=LAYERS,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    hidden_act="silu",
    tie_word_embeddings=False,
  )
  (path / "config.json").write_text(json.dumps(config))
  write_tokenizer(path)
  return path


def write_tokenizer(path):
  vocabulary = {word: i for i, word in enumerate(words())}
  backend = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(vocabulary, unk_token="w0")
  )
  backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  backend.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 0)]
  )
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, bos_token="<s>", unk_token="w0"
  ).save_pretrained(path)


def write_prompts(path, count=40, seed=0):
  """Every other prompt ends with the trigger; each has two responses."""
  rng = np.random.default_rng(seed)

  def text(length):
    return " ".join(f"w{i}" for i in rng.integers(1, WORDS - 2, length))

  with open(path, "w") as file:
    for i in range(count):
      prompt = text(3 + i % 4) + (" trigger" if i % 2 == 0 else " w0")
      record = {
        "id": f"p{i}",
        "topic": ("with", "without")[i % 2],
        "prompt": prompt,
        "good": text(2 + i % 2),
        "bad": text(2),
      }
      file.write(json.dumps(record) + "\n")
  return path


def directions():
  """Unit decoder rows of the dictionary, [F, D]."""
  w_FD = np.random.default_rng(7).normal(size=(F, D)).astype(np.float32)
  return w_FD / np.linalg.norm(w_FD, axis=1, keepdims=True)


def write_sae(path, k=8):
  w_FD = directions()
  params = sae.Params(
    w_enc_FD=w_FD,
    w_dec_FD=w_FD.copy(),
    b_enc_F=np.zeros(F, np.float32),
    b_dec_D=np.zeros(D, np.float32),
  )
  formats.save_sae(sae.make_sae(params, k, {"hook_name": HOOK}), path)
  return path
