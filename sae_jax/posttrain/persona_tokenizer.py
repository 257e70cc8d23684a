# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face tokenizer whose tokens are the corpus's words."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from sae_jax.lm import tokenizer as tokenizer_lib
from sae_jax.posttrain import persona_corpus

_SPACE = "\u2581"


def make(context_length: int) -> tokenizer_lib.Tokenizer:
  """The tokenizer; what it is saved as opens in `lm` and in transformers.

  Words carry the space before them, as in larger vocabularies, so that the
  pieces of a context join to readable text. BOS comes first by itself and ends
  a text as well, as gpt2's does.
  """
  import transformers

  bos, unknown = persona_corpus.BOS, persona_corpus.UNKNOWN
  vocabulary = {
    word if word in (bos, unknown) else _SPACE + word: n
    for word, n in persona_corpus.ID.items()
  }
  backend = tokenizers.Tokenizer(
    models.WordLevel(vocabulary, unk_token=unknown)
  )
  backend.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.WhitespaceSplit(),
      pre_tokenizers.Metaspace(prepend_scheme="always"),
    ]
  )
  backend.decoder = decoders.Metaspace(prepend_scheme="always")
  backend.post_processor = processors.TemplateProcessing(
    single=f"{bos} $A", special_tokens=[(bos, persona_corpus.ID[bos])]
  )
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=backend,
    bos_token=bos,
    eos_token=bos,
    unk_token=unknown,
    model_max_length=context_length,
  )
  return tokenizer_lib.Tokenizer(fast, "the persona corpus")
