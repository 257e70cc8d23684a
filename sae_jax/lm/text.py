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
import glob
import gzip
import hashlib
import itertools
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from sae_jax import errors
from sae_jax.lm import tokenizer as tokenizer_lib

_TEXT_SUFFIXES = (".txt", ".md")
_JSONL_SUFFIXES = (".jsonl", ".ndjson")

# A longer text document is read as several, cut after a line end where there
# is one: the bound on memory for a file that is one huge document.
_MAX_DOCUMENT_CHARS = 1 << 20

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
    if path.startswith("hf:"):
      records = _dataset(config, path)
    else:
      records = itertools.chain.from_iterable(
        _file_records(config, file) for file in _files(config, path)
      )
    for place, record in records:
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
      for _, record in itertools.islice(_dataset(config, path), 256):
        digest.update(json.dumps(record, sort_keys=True, default=str).encode())
      continue
    for file in _files(config, path):
      size = file.stat().st_size
      digest.update(f"{_kind(config, file)} {size}".encode())
      with file.open("rb") as f:
        if size <= _HASH_WHOLE_BYTES:
          while block := f.read(1 << 20):
            digest.update(block)
        else:
          for n in range(64):
            f.seek((size - (1 << 20)) * n // 63)
            digest.update(f.read(1 << 20))
  return digest.hexdigest()


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


def _suffix(file: pathlib.Path) -> str:
  name = file.name.lower()
  return pathlib.Path(name.removesuffix(".gz")).suffix


def _kind(config: TextConfig, file: pathlib.Path) -> str:
  if config.kind != "auto":
    return config.kind
  if _suffix(file) in _JSONL_SUFFIXES:
    return "jsonl"
  if _suffix(file) in _TEXT_SUFFIXES:
    return "text"
  raise errors.InputError(
    f"{file}: cannot tell from its name what it is; set text.kind to 'text' or"
    " 'jsonl'."
  )


def _files(config: TextConfig, path: str) -> list[pathlib.Path]:
  root = pathlib.Path(path).expanduser()
  if root.is_file():
    return [root]
  if root.is_dir():
    suffixes = _TEXT_SUFFIXES * (config.kind != "jsonl")
    suffixes += _JSONL_SUFFIXES * (config.kind != "text")
    found = [
      f for f in root.rglob("*") if f.is_file() and _suffix(f) in suffixes
    ]
    wanted = f"no {', '.join(suffixes)} files in this directory"
  else:
    found = [
      f
      for name in glob.glob(str(root), recursive=True)
      if (f := pathlib.Path(name)).is_file()
    ]
    wanted = "no such file"
  if not found:
    raise errors.InputError(f"{path}: {wanted}; set text.path to some text.")
  return sorted(found)


def _file_records(
  config: TextConfig, file: pathlib.Path
) -> Iterator[tuple[str, Any]]:
  """(place, record) pairs: a record is a string, or a line's JSON value."""
  try:
    if _kind(config, file) == "jsonl":
      yield from _json_lines(file)
    else:
      yield from _texts(config, file)
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    raise errors.InputError(
      f"{file}: damaged gzip data ({error}); compress the file again."
    ) from error


def _open(file: pathlib.Path) -> Any:
  return gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb")


def _json_lines(file: pathlib.Path) -> Iterator[tuple[str, Any]]:
  with _open(file) as f:
    for number, line in enumerate(f, 1):
      if not line.strip():
        continue
      place = f"{file}:{number}"
      try:
        yield place, json.loads(_decode(line, place))
      except json.JSONDecodeError as error:
        raise errors.InputError(
          f"{place}: not JSON ({error.msg} at column {error.colno}); a JSONL"
          " file has one JSON object on every line."
        ) from error


def _decode(data: bytes, place: str) -> str:
  try:
    return data.decode("utf-8-sig")  # a leading byte-order mark is no text
  except UnicodeDecodeError as error:
    raise errors.InputError(
      f"{place}: byte {data[error.start]:#04x} at position {error.start} is not"
      " UTF-8; convert the file (`iconv -t UTF-8`)."
    ) from error


def _texts(config: TextConfig, file: pathlib.Path) -> Iterator[tuple[str, str]]:
  held, first, number = "", 1, 0
  with _open(file) as f:
    # readlines(n) stops after the line that passes n bytes.
    while lines := f.readlines(1 << 16):
      for line in lines:
        number += 1
        held += _decode(line, f"{file}:{number}")
      while (end := _document_end(config, held)) is not None:
        length, step = end
        yield f"{file}:{first}", held[:length]
        first += held.count("\n", 0, step)
        held = held[step:]
  yield f"{file}:{first}", held


def _document_end(config: TextConfig, held: str) -> tuple[int, int] | None:
  """Length of the first document in `held` and where the next one starts."""
  if config.separator is not None:
    end = held.find(config.separator)
    if 0 <= end <= _MAX_DOCUMENT_CHARS:
      return end, end + len(config.separator)
  if len(held) <= _MAX_DOCUMENT_CHARS:
    return None
  cut = held.rfind("\n", 0, _MAX_DOCUMENT_CHARS) + 1 or _MAX_DOCUMENT_CHARS
  return cut, cut


def _dataset(config: TextConfig, path: str) -> Iterator[tuple[str, Any]]:
  """(place, record) pairs of a Hugging Face dataset, streamed."""
  try:
    import datasets
  except ModuleNotFoundError as error:
    raise errors.InputError(
      f"{path}: reading Hugging Face datasets needs the `datasets` package;"
      " `pip install 'sae-jax[datasets]'`."
    ) from error
  name, _, subset = path.removeprefix("hf:").partition(":")
  try:
    stream = datasets.load_dataset(
      name, subset or None, split=config.split, streaming=True
    )
  except (OSError, ValueError) as error:
    raise errors.InputError(
      f"{path}: cannot open split {config.split!r} of this dataset ({error})."
    ) from error
  for number, record in enumerate(stream):
    yield f"{path} record {number}", record


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
  head = [tokenizer.bos_id] if tokenizer.wants_bos else []
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
  head = [tokenizer.bos_id] if tokenizer.wants_bos else []
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
