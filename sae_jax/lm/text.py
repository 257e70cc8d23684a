# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Text files → documents → contexts → fixed-shape token batches.

Reads plain text, JSONL (text or chat messages, .gz too) and Hugging Face
datasets as streams, so memory does not grow with the corpus. The same config,
files and tokenizer give the same batches, in the order of the files.

A context is the token sequence the language model sees at once. Packed: texts
follow one another with an EOS (else a BOS) between them and are cut every
`context_length` tokens wherever that falls. Not packed: a context holds tokens
of one document, and a longer document goes on in further contexts. Either way
BOS comes first where the tokenizer wants one, and no token is left out.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from sae_jax import errors
from sae_jax.lm import records
from sae_jax.lm import tokenizer as tokenizer_lib

# Documents are tokenised this many characters at a time: enough for the
# tokenizer's threads, a few tens of MB of encodings.
_GROUP_CHARS = 1 << 20
_GROUP_DOCUMENTS = 1024

# Files up to this size are hashed whole; of larger ones 64 blocks of 1 MiB.
_HASH_WHOLE_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
  """Where text comes from and how it becomes contexts."""

  # Files, directories (their text and JSONL files, at any depth), globs, each
  # of them in sorted order; or "hf:NAME" or "hf:NAME:SUBSET", a dataset of the
  # Hugging Face hub or a local directory of one.
  path: str | tuple[str, ...]
  # "text", "jsonl", or "auto": by the file's suffix (.gz may follow).
  kind: str = "auto"
  # Field of a record that holds its text (a string) or its chat (a list of
  # {"role", "content"}); None: "messages" where there is one, else "text".
  field: str | None = None
  # What stands between two documents of a text file, such as "\n\n"; None: a
  # file is one document.
  separator: str | None = None
  # Split of a Hugging Face dataset; files have none.
  split: str = "train"
  # Tokens per context, BOS included.
  context_length: int = 256
  # Whether contexts run on across documents (no padding, fastest) or hold one
  # document each.
  packed: bool = True

  def __post_init__(self):
    if not self.paths or not all(self.paths):
      raise errors.InputError(
        f"text.path is {self.path!r}; give a file, directory, glob or hf:NAME."
      )
    if self.kind not in ("auto", "text", "jsonl"):
      raise errors.InputError(
        f"text.kind is {self.kind!r}; it is 'auto', 'text' or 'jsonl'."
      )
    if self.separator == "":
      raise errors.InputError(
        "text.separator is empty; leave it out to take a file as one document."
      )
    if self.context_length < 2:
      raise errors.InputError(
        f"text.context_length is {self.context_length}; it must be at least 2."
      )

  @property
  def paths(self) -> tuple[str, ...]:
    return (self.path,) if isinstance(self.path, str) else tuple(self.path)


@dataclasses.dataclass(frozen=True)
class Document:
  """One text as it will be tokenised.

  Attributes:
    text: the text, a chat already through the template.
    chat: whether it came from chat messages.
    place: file and line, or dataset and record, for messages.
  """

  text: str
  chat: bool
  place: str


@dataclasses.dataclass(frozen=True)
class Context:
  """One token sequence as the language model sees it.

  Attributes:
    tokens: int32 [T'], 1 <= T' <= context_length; BOS included.
  """

  tokens: np.ndarray


def documents(
  config: TextConfig, tokenizer: tokenizer_lib.Tokenizer
) -> Iterator[Document]:
  """The documents in order, those with no text left out.

  Raises:
    errors.InputError: with file and line, for what cannot be read.
  """
  for path in config.paths:
    for place, record in _records(config, path):
      document = _document(config, tokenizer, place, record)
      if document.text:
        yield document


def contexts(
  config: TextConfig,
  tokenizer: tokenizer_lib.Tokenizer,
  *,
  lane: int = 0,
  lanes: int = 1,
) -> Iterator[Context]:
  """The contexts in order.

  Lane l of L makes its contexts from the documents d = l (mod L), so that
  several processes share the tokenising; what a lane holds depends on `lanes`
  but not on which process runs it.

  Raises:
    errors.InputError: there is no text at all, or see `documents`.
  """
  _check_lane(lane, lanes)
  texts = _CountedDocuments(documents(config, tokenizer))
  mine = itertools.islice(texts, lane, None, lanes)
  tokenised = _tokenise(mine, tokenizer)
  cut = _packed if config.packed else _unpacked
  yield from cut(tokenised, tokenizer, config.context_length)
  if not texts.count:
    raise errors.InputError(
      f"{', '.join(config.paths)}: no text in it; give files that hold some."
    )


def batches(
  config: TextConfig,
  tokenizer: tokenizer_lib.Tokenizer,
  batch_size: int,
  *,
  lane: int = 0,
  lanes: int = 1,
  start_batch: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Batches of one shape: (tokens_BT int32, mask_BT bool), in order.

  T is `context_length`. Rows are padded on the right, where the mask is False;
  the last batch is filled up with rows that are all masked. `lane` and `lanes`
  are those of `contexts`; `start_batch` batches of the lane are skipped, which
  costs tokenising them (where a context starts depends on all before it) but
  is otherwise the same as reading and dropping them.
  """
  if batch_size < 1 or start_batch < 0:
    raise errors.InputError(
      f"batch_size {batch_size} and start_batch {start_batch} must be at least"
      " 1 and 0."
    )
  pad = next(
    (i for i in (tokenizer.pad_id, tokenizer.eos_id) if i is not None), 0
  )
  shape = (batch_size, config.context_length)
  source = contexts(config, tokenizer, lane=lane, lanes=lanes)
  source = itertools.islice(source, start_batch * batch_size, None)
  while group := list(itertools.islice(source, batch_size)):
    tokens_BT = np.full(shape, pad, np.int32)
    mask_BT = np.zeros(shape, np.bool_)
    for row, context in enumerate(group):
      length = len(context.tokens)
      tokens_BT[row, :length] = context.tokens
      mask_BT[row, :length] = True
    yield tokens_BT, mask_BT


def fingerprint(config: TextConfig) -> str:
  """SHA-256 of the text's bytes and of the fields that cut it into documents.

  File names and places do not count. Of a file over 256 MiB its size and 64
  evenly spaced blocks of 1 MiB are hashed; of a Hugging Face dataset its name,
  subset, split and first 256 records.
  """
  digest = hashlib.sha256()
  fields = (config.kind, config.field, config.separator)
  digest.update(json.dumps(fields).encode())
  for path in config.paths:
    if path.startswith("hf:"):
      digest.update(json.dumps([path, config.split]).encode())
      for _, record in itertools.islice(_records(config, path), 256):
        digest.update(json.dumps(record, sort_keys=True, default=str).encode())
      continue
    for file, kind in records.files(path, config.kind):
      size = file.stat().st_size
      digest.update(f"{kind} {size}".encode())
      with file.open("rb") as f:
        if size <= _HASH_WHOLE_BYTES:
          while block := f.read(1 << 20):
            digest.update(block)
        else:
          for n in range(64):
            f.seek((size - (1 << 20)) * n // 63)
            digest.update(f.read(1 << 20))
  return digest.hexdigest()


def _records(config: TextConfig, path: str) -> Iterator[tuple[str, Any]]:
  if path.startswith("hf:"):
    name, _, subset = path.removeprefix("hf:").partition(":")
    yield from records.read_dataset(name, subset or None, config.split)
    return
  for file, kind in records.files(path, config.kind):
    yield from records.read(file, kind, config.separator)


def _check_lane(lane: int, lanes: int) -> None:
  if not 0 <= lane < lanes:
    raise errors.InputError(
      f"lane {lane} of {lanes} lanes: lanes are numbered from 0."
    )


class _CountedDocuments:
  """An iterator that knows how many items it has given."""

  def __init__(self, source: Iterator[Document]):
    self._source = source
    self.count = 0

  def __iter__(self):
    return self

  def __next__(self) -> Document:
    document = next(self._source)
    self.count += 1
    return document


def _document(
  config: TextConfig,
  tokenizer: tokenizer_lib.Tokenizer,
  place: str,
  record: Any,
) -> Document:
  if isinstance(record, str):
    return Document(record, False, place)
  if not isinstance(record, dict):
    raise errors.InputError(
      f"{place}: a {type(record).__name__} where a JSON object is wanted, such"
      ' as {"text": "…"} or {"messages": […]}.'
    )
  field = config.field
  if field is None:
    field = "messages" if "messages" in record else "text"
  value = record.get(field)
  if isinstance(value, str):
    return Document(value, False, place)
  if not isinstance(value, list) or not all(_is_message(m) for m in value):
    have = ", ".join(sorted(map(str, record))) or "none"
    raise errors.InputError(
      f"{place}: field {field!r} is {_brief(value)}; it must be a string or a"
      ' list of {"role": "…", "content": "…"}. Fields here: '
      f"{have}; set text.field to the one that holds the text."
    )
  if not value:
    return Document("", True, place)
  try:
    return Document(tokenizer.render_chat(value), True, place)
  except errors.InputError as error:
    raise errors.InputError(f"{place}: {error}") from error


def _is_message(value: Any) -> bool:
  return (
    isinstance(value, dict)
    and isinstance(value.get("role"), str)
    and isinstance(value.get("content"), str)
  )


def _brief(value: Any) -> str:
  text = "missing" if value is None else repr(value)
  return text if len(text) <= 60 else f"{text[:60]}…"


def _tokenise(
  source: Iterator[Document], tokenizer: tokenizer_lib.Tokenizer
) -> Iterator[tuple[Document, list[int]]]:
  """Pairs each document with its ids, many at a time; ids have no BOS added."""
  for group in _groups(source):
    texts = [document.text for document in group]
    yield from zip(
      group, tokenizer.encode_batch(texts, add_bos=False), strict=True
    )


def _groups(source: Iterator[Document]) -> Iterator[list[Document]]:
  group, size = [], 0
  for document in source:
    group.append(document)
    size += len(document.text)
    if size >= _GROUP_CHARS or len(group) >= _GROUP_DOCUMENTS:
      yield group
      group, size = [], 0
  if group:
    yield group


def _take(
  ids: list[int], at: int, head: list[int], length: int
) -> tuple[np.ndarray, int]:
  """One context from position `at` on, and the position after it."""
  # A chat template may write BOS itself; it is not wanted twice.
  head = [] if ids[at : at + 1] == head else head
  stop = min(at + length - len(head), len(ids))
  return np.asarray(head + ids[at:stop], np.int32), stop


def _unpacked(
  tokenised: Iterable[tuple[Document, list[int]]],
  tokenizer: tokenizer_lib.Tokenizer,
  length: int,
) -> Iterator[Context]:
  head = tokenizer.encode("")  # BOS or nothing
  for _, ids in tokenised:
    at = 0
    while at < len(ids):
      tokens, at = _take(ids, at, head, length)
      yield Context(tokens)


def _packed(
  tokenised: Iterable[tuple[Document, list[int]]],
  tokenizer: tokenizer_lib.Tokenizer,
  length: int,
) -> Iterator[Context]:
  head = tokenizer.encode("")  # BOS or nothing
  between = next(
    ([i] for i in (tokenizer.eos_id, tokenizer.bos_id) if i is not None), []
  )
  held: list[int] = []
  for document, ids in tokenised:
    # A chat template marks where a conversation ends.
    held += ids if document.chat else ids + between
    at = 0
    while len(held) - at >= length:
      tokens, at = _take(held, at, head, length)
      yield Context(tokens)
    held = held[at:]
  at = 0
  while at < len(held):
    tokens, at = _take(held, at, head, length)
    yield Context(tokens)
