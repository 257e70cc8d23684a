# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Files, directories, globs and Hugging Face datasets → records, streamed.

A record is a string (a piece of a plain text file) or the JSON value of one
line or row, and comes with its place (file and line) for messages. Order:
paths as given, files sorted, lines as they stand.
"""

import glob
import gzip
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from sae_jax import errors

_KINDS = {".txt": "text", ".md": "text", ".jsonl": "jsonl", ".ndjson": "jsonl"}

# A longer piece of text is read as several records, cut after a line end where
# there is one: the bound on memory for a file that is one huge document.
_MAX_RECORD_CHARS = 1 << 20


def files(path: str, kind: str = "auto") -> list[tuple[pathlib.Path, str]]:
  """The files that a path, directory or glob means, each with its kind.

  Args:
    path: a file; a directory, searched at any depth for text and JSONL files;
      or a glob.
    kind: "text", "jsonl", or "auto": by suffix, .gz apart.

  Raises:
    errors.InputError: there are none, or a file's kind cannot be told.
  """
  root = pathlib.Path(path).expanduser()
  if root.is_file():
    found = [root]
  elif root.is_dir():
    found = [f for f in root.rglob("*") if f.is_file() and _suffix_kind(f)]
    found = [f for f in found if kind in ("auto", _suffix_kind(f))]
  else:
    found = [
      pathlib.Path(f)
      for f in glob.glob(str(root), recursive=True)
      if pathlib.Path(f).is_file()
    ]
  if not found:
    raise errors.InputError(
      f"{path}: {'no text files in there' if root.is_dir() else 'no such file'}"
      f" ({', '.join(_KINDS)}, also .gz); set text.path to some text."
    )
  return [(f, _kind(f, kind)) for f in sorted(found)]


def completion(
  record: Mapping[str, Any], field: str
) -> tuple[Any, Mapping[str, Any], str]:
  """Where the completion of a record stands: its field, or the last message.

  Returns:
    the messages of the prompt (None: there are none), and the mapping and its
    field that hold the completion; whether that is text is for the caller.
  """
  messages = record.get("messages")
  if record.get(field) is None and isinstance(messages, list) and messages:
    last = messages[-1]
    if isinstance(last, Mapping) and last.get("role") == "assistant":
      return messages[:-1], last, "content"
  return messages, record, field


def _suffix_kind(file: pathlib.Path) -> str | None:
  name = file.name.lower().removesuffix(".gz")
  return _KINDS.get(pathlib.Path(name).suffix)


def _kind(file: pathlib.Path, kind: str) -> str:
  known = _suffix_kind(file) if kind == "auto" else kind
  if known is None:
    raise errors.InputError(
      f"{file}: cannot tell from its name what it is; set text.kind to 'text'"
      " or 'jsonl'."
    )
  return known


def read(
  file: pathlib.Path, kind: str, separator: str | None = None
) -> Iterator[tuple[str, Any]]:
  """(place, record) pairs of one file.

  Args:
    file: the file; gzip where it ends in .gz.
    kind: "text" or "jsonl".
    separator: what stands between the records of a text file; None: nothing,
      the file is one record.

  Raises:
    errors.InputError: bytes that are not UTF-8, lines that are not JSON.
  """
  try:
    if kind == "jsonl":
      yield from _json_lines(file)
    else:
      yield from _texts(file, separator)
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


def _texts(
  file: pathlib.Path, separator: str | None
) -> Iterator[tuple[str, str]]:
  held, first, number = "", 1, 0
  with _open(file) as f:
    # readlines(n) stops after the line that passes n bytes.
    while lines := f.readlines(1 << 16):
      for line in lines:
        number += 1
        held += _decode(line, f"{file}:{number}")
      while (end := _record_end(held, separator)) is not None:
        length, step = end
        yield f"{file}:{first}", held[:length]
        first += held.count("\n", 0, step)
        held = held[step:]
  yield f"{file}:{first}", held


def _record_end(held: str, separator: str | None) -> tuple[int, int] | None:
  """Length of the first record in `held` and where the next one starts."""
  if separator is not None:
    end = held.find(separator)
    if 0 <= end <= _MAX_RECORD_CHARS:
      return end, end + len(separator)
  if len(held) <= _MAX_RECORD_CHARS:
    return None
  cut = held.rfind("\n", 0, _MAX_RECORD_CHARS) + 1 or _MAX_RECORD_CHARS
  return cut, cut


def read_dataset(
  name: str, subset: str | None, split: str
) -> Iterator[tuple[str, Any]]:
  """(place, record) pairs of a Hugging Face dataset, streamed.

  Raises:
    errors.InputError: the `datasets` package or the dataset is not there.
  """
  try:
    import datasets
  except ModuleNotFoundError as error:
    raise errors.InputError(
      f"hf:{name}: reading Hugging Face datasets needs the `datasets` package;"
      " `pip install 'sae-jax[datasets]'`."
    ) from error
  try:
    stream = datasets.load_dataset(name, subset, split=split, streaming=True)
  except (OSError, ValueError) as error:
    raise errors.InputError(
      f"hf:{name}: cannot open subset {subset}, split {split!r} ({error});"
      " check the names and the network."
    ) from error
  for number, record in enumerate(stream):
    yield f"hf:{name} record {number}", record
