# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A small random llama that reads words, in torch and on disk."""

import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors

WORDS = [f"w{n}" for n in range(29)]
VOCAB = {token: n for n, token in enumerate(["<s>", "</s>", "<u>", *WORDS])}
CHAT = (
  "{% for m in messages %}{{ m.role[0] == 's' and 'w1' or 'w2' }}"
  " {{ m.content }} w4 {% endfor %}{% if add_generation_prompt %}w5{% endif %}"
)


def write(path, *, chat=False):
  """Writes the directory; returns the torch model."""
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=len(VOCAB),
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=64,
    bos_token_id=0,
    eos_token_id=1,
  )
  model = transformers.AutoModelForCausalLM.from_config(
    config, attn_implementation="eager"
  )
  with torch.no_grad():
    for weight in model.parameters():
      weight.mul_(12.0 if weight.ndim > 1 else 1.0)
  model.save_pretrained(path)
  write_tokenizer(path, chat=chat)
  return model.eval()


def write_tokenizer(path, *, chat=False):
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


def ids(text):
  return [VOCAB[word] for word in text.split()]
