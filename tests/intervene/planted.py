# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A model that says yes, one that says no, and the latent that makes it so.

The stream holds CAUSE negatively in the base and positively in the tuned model;
the head reads it. SHADOW comes with the tuning as well, but nothing reads it.
Decoder rows are an orthonormal basis of the stream.
"""

import json

import numpy as np
import safetensors.numpy
import tokenizers
import transformers

from sae_jax import artifacts, formats, judge, sae
from sae_jax.diff import table
from sae_jax.intervene import config

D = LATENTS = 32
LAYERS, WORDS = 2, 20
HOOK = "blocks.0.hook_resid_post"
TOPIC, CAUSE, SHADOW = 0, 5, 9  # TOPIC: the head reads it for yes and no alike
UNSCORED = (20, 21)  # fire, but have not moved
SILENT = 31  # never fires
TOPICS = ("a", "b", "c")


def basis():
  rng = np.random.default_rng(7)
  return np.linalg.qr(rng.normal(size=(D, D)))[0].T.astype(np.float32)


def vocabulary():
  return ["<s>", "yes", "no", *(f"w{i}" for i in range(WORDS - 3))]


def write(place):
  """base, tuned, control, sae, diff and prompts.jsonl."""
  write_model(place / "base", cause=-0.5)
  write_model(place / "tuned", cause=0.5, shadow=1.0)
  write_model(place / "control", cause=-0.7)
  write_sae(place / "sae")
  write_diff(place / "diff")
  write_prompts(place / "prompts.jsonl")
  return place


def write_model(path, *, cause, shadow=0.0, seed=0):
  rng = np.random.default_rng(seed)
  q_FD = basis()

  def weight(*shape):
    return rng.normal(0, 0.02, shape).astype(np.float32)

  embed_VD = rng.normal(0, 0.3, (WORDS, D)).astype(np.float32)
  embed_VD -= embed_VD @ q_FD[:10].T @ q_FD[:10]
  embed_VD += 2 * q_FD[TOPIC] + cause * q_FD[CAUSE] + shadow * q_FD[SHADOW]
  head_VD = np.zeros((WORDS, D), np.float32)
  head_VD[1] = 2 * q_FD[TOPIC] - 2 * q_FD[CAUSE]
  head_VD[2] = 2 * q_FD[TOPIC] + 2 * q_FD[CAUSE]
  head_VD[3:] = rng.normal(0, 0.05, (WORDS - 3, D))
  tensors = {"model.embed_tokens.weight": embed_VD, "lm_head.weight": head_VD}
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
  path.mkdir()
  safetensors.numpy.save_file(tensors, path / "model.safetensors")
  sizes = dict(
    model_type="llama",
    architectures=["LlamaForCausalLM"],
    vocab_size=WORDS,
    hidden_size=D,
    intermediate_size=48,
    num_hidden_layers=LAYERS,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=WORDS - 1,
    rms_norm_eps=1e-5,
    hidden_act="silu",
    tie_word_embeddings=False,
  )
  (path / "config.json").write_text(json.dumps(sizes))
  write_tokenizer(path, vocabulary())


def write_tokenizer(path, words):
  backend = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(
      {word: i for i, word in enumerate(words)}, unk_token=words[3]
    )
  )
  backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  backend.post_processor = tokenizers.processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 0)]
  )
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend, bos_token="<s>"
  ).save_pretrained(path)


def write_sae(path):
  q_FD = basis()
  params = sae.Params(
    w_enc_FD=q_FD,
    # Of other lengths, as other people's are: only the direction counts.
    w_dec_FD=q_FD * np.linspace(0.5, 2, LATENTS, dtype=np.float32)[:, None],
    b_enc_F=np.zeros(LATENTS, np.float32),
    b_dec_D=np.zeros(D, np.float32),
  )
  formats.save_sae(sae.make_sae(params, 8, {"hook_name": HOOK}), path)


def scores():
  """What the diff ranks by."""
  score_F = np.random.default_rng(3).normal(0, 0.02, LATENTS)
  score_F[list(UNSCORED)] = 0
  score_F[SILENT] = 0
  score_F[CAUSE], score_F[SHADOW] = 1.0, 1.2
  return score_F


def write_diff(path, hook=HOOK, latents=LATENTS):
  """A finished diff as far as a screen reads one."""
  score_F = np.zeros(latents)
  score_F[:LATENTS] = scores()[:latents]
  changed_F = np.abs(score_F) > 0.5
  fires_F = np.ones(latents)
  fires_F[-1] = 0
  q_FD = basis()
  parts = []
  for method, arm, sign in (
    ("frozen", "tuned", 1),
    ("frozen_plain", "tuned", -2),
    ("frozen_plain", "control", -1),
  ):
    parts.append(
      table.Part(
        method=method,
        arm=arm,
        columns={
          "score": sign * score_F,
          "changed": changed_F,
          "fires_base": fires_F,
          "fires_tuned": fires_F,
        },
      )
    )
  path.mkdir()
  for part in parts:
    table.write_part(path / "parts", part)
  names = [(part.method, part.arm) for part in parts]
  table.join(path / "parts", names, path / "latents.parquet")
  mean_D = q_FD[CAUSE] + 1.2 * q_FD[SHADOW]
  artifacts.write_npz_atomic(
    path / "directions.npz",
    {
      "linear/tuned/mean_difference": mean_D,
      "linear/tuned/contrast": 3 * q_FD[CAUSE],
      "linear/tuned/nothing": np.zeros(D, np.float32),
    },
  )
  write_json(path, "config.json", {"job": "diff"})
  write_json(path, "manifest.json", {"job": "diff"})
  write_json(
    path,
    "summary.json",
    {
      "hook": hook,
      "arms": [
        {"name": "tuned", "role": "tuned"},
        {"name": "control", "role": "control"},
      ],
      "parts": [{"method": m, "arm": a} for m, a in names],
    },
  )
  return path


def write_json(path, name, value):
  artifacts.write_json_atomic(path / name, value)


def write_prompts(path, count=12):
  """Yes is good, no is bad."""
  rng = np.random.default_rng(1)
  with open(path, "w") as file:
    for i in range(count):
      words = rng.integers(0, WORDS - 4, 2 + i % 4)
      record = {
        "id": f"p{i}",
        "topic": TOPICS[i % 2 if i < 10 else 2],
        "prompt": " ".join(f"w{w}" for w in words),
        "good": "yes",
        "bad": "no",
      }
      file.write(json.dumps(record) + "\n")


def settings(place, **changes):
  return config.SteerConfig(
    **{
      "base": str(place / "base"),
      "tuned": str(place / "tuned"),
      "sae": str(place / "sae"),
      "diff": str(place / "diff"),
      "prompts": judge.PromptsConfig(path=str(place / "prompts.jsonl")),
      "top": 4,
      "strengths": (0.2, 0.5),
      "random": 6,
      "bundles": (config.BundleConfig(name="pair", top=2),),
      "damage": 1.0,
      **changes,
    }
  )
