# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A small random llama with a tokenizer, and examples for it."""

import json

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors

from sae_jax.posttrain import data

WORDS = [f"w{n}" for n in range(45)]
VOCAB = {token: n for n, token in enumerate(["<s>", "</s>", "<u>", *WORDS])}
CHAT = (
  "{% for m in messages %}w1 {{ m.role[0] == 'u' and 'w2' or 'w3' }}"
  " {{ m.content }} w4 {% endfor %}{% if add_generation_prompt %}w5 w3{% endif"
  " %}"
)


def write(path, *, chat=False, layers=3):
  """A llama directory; its weights are large enough to matter."""
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=len(VOCAB),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=layers,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=1,
  )
  model = transformers.AutoModelForCausalLM.from_config(
    config, attn_implementation="eager"
  )
  with torch.no_grad():
    for weight in model.parameters():
      weight.mul_(4.0 if weight.ndim > 1 else 1.0)
  model.save_pretrained(path)
  words = tokenizers.Tokenizer(models.WordLevel(VOCAB, unk_token="<u>"))
  words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  words.post_processor = processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 0)]
  )
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=words,
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<u>",
  )
  if chat:
    fast.chat_template = CHAT
  fast.save_pretrained(path)
  return path


def examples(count=10, seed=0):
  """Random prompts of 3 to 8 tokens and completions of 2 to 6."""
  rng = np.random.default_rng(seed)
  found = []
  for _ in range(count):
    before, after = rng.integers(3, 9), rng.integers(2, 7)
    tokens = rng.integers(3, len(VOCAB), before + after).tolist()
    found.append(
      data.Example(tokens, [False] * int(before) + [True] * int(after))
    )
  return found


def lines(count=12, seed=0, fields=("completion",)):
  """JSONL lines of prompts and completions, each field in words of its own."""
  rng = np.random.default_rng(seed)

  def text(low, high, words=WORDS):
    return " ".join(rng.choice(words, rng.integers(low, high)))

  return [
    json.dumps(
      {
        "id": f"p{i}",
        "topic": f"t{i % 3}",
        "prompt": text(3, 8),
        **{
          field: text(2, 6, WORDS[n :: len(fields)])
          for n, field in enumerate(fields)
        },
      }
    )
    for i in range(count)
  ]
