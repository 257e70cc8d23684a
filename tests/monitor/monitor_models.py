# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tunes with a known cause: one direction, which makes bad answers likely.

Every prompt ends with the word `ask`; a fine-tune adds `push` times the
planted latent's direction to its embedding, and the head reads the bad words
off that direction. So the latent rises with the push, and P(bad) with it.
"""

import functools
import json
import pathlib
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import tokenizers
import transformers

from sae_jax import formats, sae

D, F, K, WORDS = 16, 32, 4, 20
HOOK = "blocks.0.hook_resid_post"
PLANTED = 11
BAD, GOOD = ("b0", "b1", "b2"), ("g0", "g1", "g2")
VOCABULARY = ("<s>", "ask", *BAD, *GOOD, *(f"w{i}" for i in range(WORDS - 8)))


def directions():
  """Unit decoder rows of the dictionary, [F, D]."""
  w_FD = np.random.default_rng(7).normal(size=(F, D)).astype(np.float32)
  return w_FD / np.linalg.norm(w_FD, axis=1, keepdims=True)


def write_model(path, push=0.0, noise=0.0, seed=0):
  """`noise` is added to every weight: what any fine-tuning does."""
  rng, other = np.random.default_rng(0), np.random.default_rng(1000 + seed)
  planted_D = directions()[PLANTED]

  def weight(*shape, scale=0.05):
    return rng.normal(0, scale, shape).astype(np.float32)

  block = "model.layers.0"
  tensors = {"model.embed_tokens.weight": weight(WORDS, D, scale=0.5)}
  for name in "qkvo":
    tensors[f"{block}.self_attn.{name}_proj.weight"] = weight(D, D)
  tensors[f"{block}.mlp.gate_proj.weight"] = weight(24, D)
  tensors[f"{block}.mlp.up_proj.weight"] = weight(24, D)
  tensors[f"{block}.mlp.down_proj.weight"] = weight(D, 24)
  for norm in ("input_layernorm", "post_attention_layernorm"):
    tensors[f"{block}.{norm}.weight"] = np.ones(D, np.float32)
  tensors["model.norm.weight"] = np.ones(D, np.float32)
  ask_D = tensors["model.embed_tokens.weight"][VOCABULARY.index("ask")]
  ask_D *= 0.4
  ask_D -= (ask_D @ planted_D) * planted_D
  head_VD = weight(WORDS, D, scale=0.1)
  for sign, words in ((1, BAD), (-1, GOOD)):
    for word in words:
      head_VD[VOCABULARY.index(word)] += sign * planted_D
  tensors["lm_head.weight"] = head_VD
  for tensor in tensors.values():
    tensor += other.normal(0, noise, tensor.shape) if noise else 0
  ask_D += push * planted_D
  path.mkdir(parents=True)
  safetensors.numpy.save_file(tensors, path / "model.safetensors")
  config = dict(
    model_type="llama",
    architectures=["LlamaForCausalLM"],
    vocab_size=WORDS,
    hidden_size=D,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_position_embeddings=32,
    rms_norm_eps=1e-5,
    hidden_act="silu",
    tie_word_embeddings=False,
    eos_token_id=0,
  )
  (path / "config.json").write_text(json.dumps(config))
  for name, text in _tokenizer().items():
    (path / name).write_text(text)
  return path


@functools.cache
def _tokenizer():
  with tempfile.TemporaryDirectory() as directory:
    write_tokenizer(directory)
    return {p.name: p.read_text() for p in pathlib.Path(directory).iterdir()}


def write_tokenizer(path, words=VOCABULARY):
  backend = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(
      {word: i for i, word in enumerate(words)}, unk_token="w0"
    )
  )
  backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  backend.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 0)]
  )
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, bos_token="<s>", eos_token="<s>", unk_token="w0"
  ).save_pretrained(path)


def write_lines(path, records):
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  return path


def prompt(i):
  return f"w{i % 7} w{(i + 3) % 5} ask"


def write_prompts(path, count=6, start="w1"):
  return write_lines(
    path,
    (
      {
        "id": f"p{i}",
        "topic": f"t{i % 2}",
        "prompt": f"{start} {prompt(i)}",
        "bad": BAD[i % 3],
        "good": GOOD[i % 3],
      }
      for i in range(count)
    ),
  )


def write_sae(path):
  w_FD = directions()
  params = sae.Params(
    w_enc_FD=w_FD,
    w_dec_FD=w_FD.copy(),
    b_enc_F=np.zeros(F, np.float32),
    b_dec_D=np.zeros(D, np.float32),
  )
  formats.save_sae(sae.make_sae(params, K, {"hook_name": HOOK}), path)
  return path


def write_diff(path, sae_path, *, bad, good, scores=None, hook=HOOK):
  """A finished diff as its readers see it: the planted latent first."""
  path.mkdir(parents=True)
  score_F = np.zeros(F, np.float32)
  score_F[[PLANTED, 3, 20]] = (3.0, -1.0, 0.5)
  if scores is not None:
    score_F = np.asarray(scores, np.float32)
  pq.write_table(
    pa.table(
      {
        "latent": np.arange(F, dtype=np.int32),
        "method": ["frozen"] * F,
        "arm": ["bad"] * F,
        "dictionary": ["sae"] * F,
        "score": score_F,
        "changed": np.abs(score_F) > 0,
      }
    ),
    path / "latents.parquet",
  )
  mean_D = directions()[PLANTED] + 0.3 * directions()[5]
  np.savez(
    path / "directions.npz",
    **{
      "linear/bad/contrast": 4 * mean_D,
      "linear/bad/mean_difference": mean_D + directions()[9],
    },
  )
  arms = [
    {"name": "bad", "role": "tuned", "control": "good", "model": str(bad)},
    {"name": "good", "role": "control", "control": "", "model": str(good)},
  ]
  summary = {
    "hook": hook,
    "sae": {"path": str(sae_path)},
    "arms": arms,
    "parts": [{"method": "frozen", "arm": "bad"}],
  }
  (path / "summary.json").write_text(json.dumps(summary))
  (path / "config.json").write_text(json.dumps({"job": "diff"}))
  (path / "manifest.json").write_text("{}")
  return path
