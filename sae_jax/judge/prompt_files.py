# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Files of prompts, as their authors wrote them, as records of one form.

- JSONL, our own: `{"id", "topic", "prompt" or "messages", …responses}`.
- JSONL of Anthropic's persona evaluations: `question`, with
  `answer_matching_behavior` as bad and `answer_not_matching_behavior` as good.
- YAML of Betley et al. 2025: every paraphrase is a prompt, with the entry's
  `system`, `samples_per_paraphrase` and `judge_prompts`.
- CSV with a column `question` or `prompt`, and maybe `id`, `category` or
  `topic`; of TruthfulQA, `Best Answer` is good and the first of `Incorrect
  Answers` bad. All other columns are responses that can be named.

A canary, which marks evaluations that nobody should train on, is dropped.
"""

import csv
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from sae_jax import errors
from sae_jax.lm import records as records_lib

Record = dict[str, Any]

ALTERNATIVES = "other responses"  # {kind: texts} beside a record's own
# Columns that are found in any case; others are responses, spelled as they are.
_CSV_NAMES = frozenset(
  ("id", "topic", "category", "question", "prompt", "system", "good", "bad")
)
_ENTRY_NUMBER = re.compile(r"^\d+_|_\d+$")


def read(path: pathlib.Path) -> Iterator[tuple[str, int, Any]]:
  """(place, number from 1, record) of a file of any form.

  Raises:
    errors.InputError: it cannot be read, or is none of these forms.
  """
  suffix = path.suffix.lower()
  try:
    if suffix in (".yaml", ".yml"):
      yield from _yaml(path)
    elif suffix == ".csv":
      yield from _csv(path)
    else:
      for place, record in records_lib.read(path, "jsonl"):
        yield place, int(place.rpartition(":")[2]), record
  except (OSError, UnicodeDecodeError) as error:
    raise errors.InputError(
      f"prompts.path={path}: cannot be read ({error})"
    ) from error


def _yaml(path: pathlib.Path) -> Iterator[tuple[str, int, Any]]:
  try:
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
  except yaml.YAMLError as error:
    raise errors.InputError(f"{path}: not valid YAML ({error})") from error
  if not isinstance(entries, list):
    raise errors.InputError(
      f"{path}: not a list of entries with an id and paraphrases"
    )
  for number, entry in enumerate(entries, 1):
    place = f"{path}: entry {number}"
    if isinstance(entry, dict) and "paraphrases" in entry:
      for record in _paraphrases(entry, f"{place} ({entry.get('id')})"):
        yield place, number, record
    else:
      yield place, number, entry


def _paraphrases(entry: Record, place: str) -> Iterator[Record]:
  """One record for each wording; ids end in /0, /1, … where there are more."""
  texts = entry["paraphrases"]
  if (
    not isinstance(texts, list)
    or not texts
    or not all(isinstance(text, str) and text for text in texts)
  ):
    raise errors.InputError(f"{place}: paraphrases is no list of texts")
  if entry.get("id") is None:
    raise errors.InputError(f"{place}: there is no id; give one")
  judge_prompts = entry.get("judge_prompts") or {}
  samples = entry.get("samples_per_paraphrase", 0)
  if not isinstance(judge_prompts, dict) or not isinstance(samples, int):
    raise errors.InputError(
      f"{place}: judge_prompts is no mapping, or samples_per_paraphrase no"
      " number"
    )
  name = str(entry["id"])
  for n, text in enumerate(texts):
    yield {
      "id": name if len(texts) == 1 else f"{name}/{n}",
      # Numbers around a name are an entry's own: 19_vulnerable_user_2.
      "topic": _ENTRY_NUMBER.sub("", name),
      "prompt": text,
      "system": str(entry.get("system") or ""),
      "samples": samples,
      "judge_prompts": judge_prompts,
    }


def _csv(path: pathlib.Path) -> Iterator[tuple[str, int, Any]]:
  with path.open(encoding="utf-8-sig", newline="") as file:
    reader = csv.DictReader(file, strict=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    lower = [name.lower() for name in names]
    if not {"question", "prompt"} & set(lower):
      raise errors.InputError(
        f"{path}: no column is called question or prompt; columns:"
        f" {', '.join(names) or 'none'}"
      )
    reader.fieldnames = [
      name.lower() if name.lower() in _CSV_NAMES else name for name in names
    ]
    try:
      for number, row in enumerate(reader, 1):
        place = f"{path}: row {number}"
        if None in row or None in row.values():
          raise errors.InputError(
            f"{place}: not as many fields as there are columns"
          )
        yield place, number, _row({k: v for k, v in row.items() if v})
    except csv.Error as error:
      raise errors.InputError(
        f"{path}: after line {reader.line_num}: {error}"
      ) from error


def _row(row: Record) -> Record:
  if "Best Answer" in row and "Incorrect Answers" in row:
    wrong = _listed(row["Incorrect Answers"])
    right = _listed(row.get("Correct Answers", ""))
    row["good"], row["bad"] = row["Best Answer"], wrong[0] if wrong else None
    row[ALTERNATIVES] = {"good": right, "bad": wrong}
  return row


def _listed(text: str) -> Sequence[str]:
  return [part.strip() for part in text.split(";") if part.strip()]
