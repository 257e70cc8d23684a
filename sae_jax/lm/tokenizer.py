# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of language models, without torch.

Reads a Hugging Face directory or hub id (through transformers) or the metadata
of a `.gguf`; both end as one fast tokenizer behind `Tokenizer`, which never
truncates or pads and never adds anything but, where asked, one leading BOS.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from sae_jax import errors
from sae_jax.lm import gguf_tokenizer

# Text whose token ids tell two tokenizers apart that share a vocabulary but
# split, normalise or prefix differently.
_PROBE = (
  "Hello  world\n\n\tI'LL pay $1,234.50 on 2026-01-02; n\u0303 vs \u00f1,"
  " \u4f60\u597d \U0001f600\u200d\U0001f525 \u00bd  x_y  "
)


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """A fast tokenizer of transformers with the few calls the rooms share.

  Attributes:
    fast: the `transformers.PreTrainedTokenizerFast` underneath.
    source: the path or hub id it came from, for messages.
  """

  fast: Any
  source: str

  @property
  def bos_id(self) -> int | None:
    return self.fast.bos_token_id

  @property
  def eos_id(self) -> int | None:
    return self.fast.eos_token_id

  @property
  def pad_id(self) -> int | None:
    return self.fast.pad_token_id

  @functools.cached_property
  def vocab_size(self) -> int:
    """One more than the largest token id."""
    return max(self.fast.get_vocab().values()) + 1

  @functools.cached_property
  def special_ids(self) -> frozenset[int]:
    """Ids of BOS, EOS, pad, unknown and every control token."""
    added = self.fast.added_tokens_decoder
    control = {i for i, token in added.items() if token.special}
    return frozenset(control | set(self.fast.all_special_ids))

  @functools.cached_property
  def wants_bos(self) -> bool:
    """Whether this tokenizer puts BOS in front of text by itself."""
    if self.bos_id is None:
      return False
    return self.fast.backend_tokenizer.encode("").ids[:1] == [self.bos_id]

  @functools.cached_property
  def hash(self) -> str:
    """SHA-256 of vocabulary, merges, special tokens, template and behaviour."""
    model = json.loads(self.fast.backend_tokenizer.to_str())["model"]
    merges = [
      m if isinstance(m, list) else m.split(" ", 1)
      for m in model.get("merges", ())
    ]
    parts = {
      "vocab": sorted(self.fast.get_vocab().items(), key=lambda kv: kv[1]),
      "merges": merges,
      "special": sorted(self.special_ids),
      "ids": [self.bos_id, self.eos_id, self.pad_id, self.wants_bos],
      "template": self.fast.chat_template,
      "probe": self.encode(_PROBE),
    }
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  def encode(self, text: str, add_bos: bool | None = None) -> list[int]:
    """Token ids of one text; special tokens spelled in it become special ids.

    Args:
      text: any string, possibly empty.
      add_bos: whether BOS comes first; None does as the tokenizer does.
    """
    return self.encode_batch([text], add_bos)[0]

  def encode_batch(
    self, texts: Sequence[str], add_bos: bool | None = None
  ) -> list[list[int]]:
    """`encode` of many texts, on all cores unless TOKENIZERS_PARALLELISM=0."""
    wanted = self.wants_bos if add_bos is None else add_bos
    head = [self.bos_id] if wanted and self.bos_id is not None else []
    if add_bos and not head:
      raise errors.InputError(
        f"{self.source}: this tokenizer has no BOS token; leave add_bos out."
      )
    encodings = self.fast.backend_tokenizer.encode_batch_fast(
      list(texts), add_special_tokens=False
    )
    return [head + encoding.ids for encoding in encodings]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of some tokens, special ones included."""
    return self.fast.decode(
      list(map(int, ids)),
      skip_special_tokens=False,
      clean_up_tokenization_spaces=False,
    )

  def token_strings(self, ids: Sequence[int]) -> list[str]:
    r"""One printable piece per token; they join to the text but for two cases.

    Bytes that are not whole UTF-8 characters show as `\xf0`, and ids beyond
    the vocabulary (padded embedding rows) as `<12345>`.
    """
    return [self._pieces.get(int(i), f"<{int(i)}>") for i in ids]

  @property
  def has_chat_template(self) -> bool:
    return self.fast.chat_template is not None

  def render_chat(
    self,
    messages: Sequence[Mapping[str, str]],
    add_generation_prompt: bool = False,
  ) -> str:
    """The chat template applied to {"role", "content"} messages, as text.

    Raises:
      errors.InputError: no template, or it refuses these messages.
    """
    if not self.has_chat_template:
      raise errors.InputError(
        f"{self.source}: this tokenizer has no chat template; use a chat model"
        ' or give plain text (JSONL field "text").'
      )
    try:
      return self.fast.apply_chat_template(
        [dict(m) for m in messages],
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
      )
    except (jinja2.TemplateError, ValueError, TypeError) as error:
      raise errors.InputError(
        f"{self.source}: the chat template refuses these messages: {error}."
        f" Roles are {[m.get('role') for m in messages]}."
      ) from error

  def apply_chat(
    self,
    messages: Sequence[Mapping[str, str]],
    add_generation_prompt: bool = False,
  ) -> list[int]:
    """Token ids of `render_chat`; BOS comes only from the template itself."""
    text = self.render_chat(messages, add_generation_prompt)
    return self.encode(text, add_bos=False)

  @functools.cached_property
  def _pieces(self) -> dict[int, str]:
    backend = self.fast.backend_tokenizer
    byte_level = "ByteLevel" in str(backend.decoder)
    verbatim = self.fast.added_tokens_decoder
    show = _byte_level_piece if byte_level else _sentence_piece
    return {
      i: token if i in verbatim else show(token)
      for token, i in self.fast.get_vocab().items()
    }


@functools.cache
def _byte_of_char() -> dict[str, int]:
  """GPT-2's spelling of bytes: printable Latin-1 as itself, others from 256."""
  own = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [b for b in range(256) if b not in set(own)]
  return {chr(b): b for b in own} | {
    chr(256 + n): b for n, b in enumerate(others)
  }


def _byte_level_piece(token: str) -> str:
  table = _byte_of_char()
  if not all(c in table for c in token):
    return token
  return bytes(table[c] for c in token).decode("utf-8", "backslashreplace")


def _sentence_piece(token: str) -> str:
  if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
    return bytes([int(token[3:5], 16)]).decode("utf-8", "backslashreplace")
  return token.replace("\u2581", " ")


def load(path: str | os.PathLike[str]) -> Tokenizer:
  """The tokenizer of a Hugging Face directory, hub id or `.gguf` file.

  Raises:
    errors.InputError: there is none, or it is of a kind not implemented.
  """
  # Without torch transformers prints that models are unavailable; tokenizers
  # are all that is used of it here.
  os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
  import transformers

  source = str(path)
  if pathlib.Path(source).suffix == ".gguf":
    backend, options = gguf_tokenizer.build(source)
    fast = transformers.PreTrainedTokenizerFast(
      tokenizer_object=backend, **options
    )
  else:
    try:
      fast = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, ImportError) as error:
      raise errors.InputError(
        f"{source}: no tokenizer could be loaded ({_first_line(error)}). Give a"
        " Hugging Face model directory with tokenizer.json, a hub id, or a"
        " .gguf file."
      ) from error
    if not isinstance(fast, transformers.PreTrainedTokenizerFast):
      raise errors.InputError(
        f"{source}: only a slow tokenizer ({type(fast).__name__}) is there;"
        " save it with a tokenizer.json."
      )
  fast.backend_tokenizer.no_truncation()
  fast.backend_tokenizer.no_padding()
  return Tokenizer(fast, source)


def _first_line(error: Exception) -> str:
  return (str(error).strip().splitlines() or [type(error).__name__])[0]
