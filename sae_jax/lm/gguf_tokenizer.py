# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a `.gguf`, rebuilt from its metadata.

Reads vocabulary, merges or scores, token types and special ids; makes the
`tokenizers.Tokenizer` that the model's own tokenizer.json would give. A kind
that it cannot rebuild exactly is refused.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import tokenizers
import tokenizers.decoders
import tokenizers.models
import tokenizers.normalizers
import tokenizers.pre_tokenizers

from sae_jax import errors
from sae_jax.lm import gguf

# Pre-tokenizers of byte-level vocabularies by `tokenizer.ggml.pre`: how text
# is split before merging, as in the tokenizer.json of the models they are
# named for. "digits" splits numbers one by one ahead of GPT-2's pattern.
_LLAMA3_SPLIT = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE_TOKENIZERS = {
  "gpt-2": "gpt-2",
  "smollm": "digits",
  "starcoder": "digits",
  "refact": "digits",
  "llama-bpe": _LLAMA3_SPLIT,
  "llama3": _LLAMA3_SPLIT,
  "llama-v3": _LLAMA3_SPLIT,
  "qwen2": _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}"),
}
# Whole words that are in the vocabulary are taken before any merging.
_IGNORES_MERGES = frozenset({"llama-bpe", "llama3", "llama-v3"})

# `tokenizer.ggml.token_type`.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4


def build(
  path: str | os.PathLike[str],
) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
  """The tokenizer and what else `PreTrainedTokenizerFast` has to be told.

  Raises:
    errors.InputError: the file holds no tokenizer of a known kind.
  """
  reader = gguf.open_reader(path)
  get = functools.partial(gguf.get, reader)
  kind, tokens = get("tokenizer.ggml.model"), get("tokenizer.ggml.tokens")
  if kind not in ("gpt2", "llama") or not tokens:
    raise errors.InputError(
      f"{path}: tokenizer.ggml.model {kind!r} is not implemented ('gpt2' and"
      " 'llama' are); use the Hugging Face directory of this model."
    )
  vocab = {token: i for i, token in enumerate(tokens)}
  if len(vocab) != len(tokens):
    raise errors.InputError(
      f"{path}: {len(tokens) - len(vocab)} tokens occur twice in"
      " tokenizer.ggml.tokens; convert the model again."
    )
  backend = (_byte_level if kind == "gpt2" else _sentencepiece)(
    path, get, vocab
  )
  types = get("tokenizer.ggml.token_type", [])
  for t, special in ((_CONTROL, True), (_USER_DEFINED, False)):
    added = [
      tokenizers.AddedToken(token, normalized=False, special=special)
      for token, token_type in zip(tokens, types, strict=False)
      if token_type == t
    ]
    (backend.add_special_tokens if special else backend.add_tokens)(added)
  # llama.cpp's defaults where the file does not say.
  pre = get("tokenizer.ggml.pre")
  default_bos = kind == "llama" or pre in _IGNORES_MERGES
  named = {
    name: None
    if (i := get(f"tokenizer.ggml.{key}_token_id")) is None
    else tokens[i]
    for name, key in (
      ("bos_token", "bos"),
      ("eos_token", "eos"),
      ("unk_token", "unknown"),
      ("pad_token", "padding"),
    )
  }
  return backend, {
    "chat_template": get("tokenizer.chat_template"),
    "add_bos_token": get("tokenizer.ggml.add_bos_token", default_bos),
    "clean_up_tokenization_spaces": False,
    **named,
  }


def _byte_level(
  path: Any, get: Callable[..., Any], vocab: dict[str, int]
) -> tokenizers.Tokenizer:
  """Byte-level BPE, its pre-tokenizer by `tokenizer.ggml.pre`."""
  pre = get("tokenizer.ggml.pre")
  if pre not in _PRE_TOKENIZERS:
    raise errors.InputError(
      f"{path}: tokenizer.ggml.pre {pre!r} is not implemented (there are"
      f" {', '.join(sorted(_PRE_TOKENIZERS))}); use the Hugging Face directory"
      " of this model."
    )
  merges = [tuple(m.split(" ", 1)) for m in get("tokenizer.ggml.merges", [])]
  backend = tokenizers.Tokenizer(
    tokenizers.models.BPE(vocab, merges, ignore_merges=pre in _IGNORES_MERGES)
  )
  if pre == "qwen2":
    backend.normalizer = tokenizers.normalizers.NFC()
  split = _PRE_TOKENIZERS[pre]
  pres = tokenizers.pre_tokenizers
  if split == "gpt-2":
    steps = [pres.ByteLevel(add_prefix_space=False)]
  elif split == "digits":
    steps = [
      pres.Digits(individual_digits=True),
      pres.ByteLevel(add_prefix_space=False),
    ]
  else:
    steps = [
      pres.Split(tokenizers.Regex(split), "isolated"),
      pres.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  backend.pre_tokenizer = pres.Sequence(steps)
  backend.decoder = tokenizers.decoders.ByteLevel()
  return backend


def _sentencepiece(
  path: Any, get: Callable[..., Any], vocab: dict[str, int]
) -> tokenizers.Tokenizer:
  """SentencePiece BPE with byte fallback, merges recovered from the scores."""
  scores = get("tokenizer.ggml.scores", [])
  if len(scores) != len(vocab):
    raise errors.InputError(
      f"{path}: {len(scores)} tokenizer.ggml.scores for {len(vocab)} tokens;"
      " convert the model again."
    )
  ranked = []
  for token, i in vocab.items():
    for cut in range(1, len(token)):
      left, right = token[:cut], token[cut:]
      if left in vocab and right in vocab:
        ranked.append((-scores[i], vocab[left], vocab[right], left, right))
  ranked.sort()
  unknown = get("tokenizer.ggml.unknown_token_id")
  backend = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab,
      [(left, right) for *_, left, right in ranked],
      unk_token=None if unknown is None else list(vocab)[unknown],
      fuse_unk=True,
      byte_fallback=True,
    )
  )
  prefix = get("tokenizer.ggml.add_space_prefix", True)
  norms, decs = tokenizers.normalizers, tokenizers.decoders
  replace = norms.Replace(" ", "\u2581")
  backend.normalizer = norms.Sequence(
    [norms.Prepend("\u2581"), replace] if prefix else [replace]
  )
  steps = [decs.Replace("\u2581", " "), decs.ByteFallback(), decs.Fuse()]
  backend.decoder = decs.Sequence(
    [*steps, decs.Strip(" ", 1, 0)] if prefix else steps
  )
  return backend
