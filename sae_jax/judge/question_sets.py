# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Files of prompts, as their authors wrote them, in one form.

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
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from sae_jax import errors
from sae_jax.judge import config as config_lib
from sae_jax.lm import records as records_lib

Record = dict[str, Any]

_ALTERNATIVES = "other responses"  # {kind: texts} beside a record's own
_ENTRY_NUMBER = re.compile(r"^\d+_|_\d+$")


@dataclasses.dataclass(frozen=True)
class Question:
  """One prompt as text, with what a judge may need to know of it.

  Attributes:
    id: unique in its file.
    topic: "" where the file says none.
    messages: {"role", "content"}; a plain prompt is one of the user's.
    system: the system message that comes first; "": none.
    good: responses that do not show the behaviour, the file's first one first.
    bad: responses that do.
    samples: how many answers the file asks for; 0: it does not say.
    judge_prompts: the file's own words for a judge, by name.
  """

  id: str
  topic: str
  messages: tuple[Mapping[str, str], ...]
  system: str = ""
  good: tuple[str, ...] = ()
  bad: tuple[str, ...] = ()
  samples: int = 0
  judge_prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def text(self) -> str:
    """What is asked: the one message, or the whole exchange by role."""
    if len(self.messages) == 1:
      return self.messages[0]["content"]
    return "\n\n".join(
      f"{message['role']}: {message['content']}" for message in self.messages
    )


def load_questions(
  path: str,
  *,
  behaviour: str = "bad",
  contrast: str = "good",
  system: str = "",
  topics: tuple[str, ...] = (),
  limit: int = 0,
) -> list[Question]:
  """The prompts of a file; see `of`, and `PromptsConfig` for the fields."""
  return of(
    config_lib.PromptsConfig(
      path=path,
      behaviour=behaviour,
      contrast=contrast,
      system=system,
      topics=topics,
      limit=limit,
    )
  )


def of(config: config_lib.PromptsConfig) -> list[Question]:
  """The prompts that `prompts.load` reads with this config, in its order.

  Raises:
    errors.InputError: the file cannot be read or has a bad record, named by
      its place, or no prompt is left.
  """
  found = []
  for place, record in records(config):
    messages = conversation(record, place)
    others = record.get(_ALTERNATIVES, {})
    good, bad = (
      _texts(record, kind, others.get(kind, ()), place)
      for kind in (config.contrast, config.behaviour)
    )
    found.append(
      Question(
        record["id"],
        record["topic"],
        tuple(messages),
        record.get("system") or config.system,
        good,
        bad,
        record.get("samples", 0),
        record.get("judge_prompts", {}),
      )
    )
  return found


def conversation(
  record: Mapping[str, Any], place: str
) -> list[Mapping[str, str]]:
  """The messages of a record without its system field.

  Raises:
    errors.InputError: it has neither a prompt nor messages, or its system
      message is no text.
  """
  if not isinstance(record.get("system", ""), str):
    raise errors.InputError(f'{place}: "system" is no text')
  messages = record.get("messages")
  if messages is None:
    prompt = record.get("prompt")
    if not isinstance(prompt, str) or not prompt:
      raise errors.InputError(
        f'{place}: there is neither a "prompt" (text) nor "messages"; fields'
        f" here: {', '.join(sorted(map(str, record))) or 'none'}"
      )
    return [{"role": "user", "content": prompt}]
  good = isinstance(messages, list) and all(map(_is_message, messages))
  if not good or not messages:
    raise errors.InputError(
      f'{place}: "messages" is no list of {{"role": "…", "content": "…"}}, or'
      " an empty one"
    )
  return messages


def records(
  config: config_lib.PromptsConfig,
) -> Iterator[tuple[str, Record]]:
  """(place, record) of every prompt that the config takes, in our own form.

  Every record has a unique "id" and a "topic".

  Raises:
    errors.InputError: see `of`.
  """
  path = pathlib.Path(config.path).expanduser()
  seen: dict[str, str] = {}
  for place, number, record in _read(path):
    if not isinstance(record, dict):
      raise errors.InputError(
        f'{place}: not a JSON object; write {{"prompt": "…"}}'
      )
    record = _known_names(record)
    record["topic"] = str(record.get("topic") or "")
    if config.topics and record["topic"] not in config.topics:
      continue
    name = record["id"] = str(record.get("id", number))
    if name in seen:
      raise errors.InputError(
        f"{place}: id {name!r} is also that of {seen[name]}; ids are unique"
      )
    seen[name] = place
    yield place, record
    if len(seen) == config.limit:
      return
  if not seen:
    topics = f" of topics {', '.join(config.topics)}" if config.topics else ""
    raise errors.InputError(f"{path}: there are no prompts{topics} in it")


def _read(path: pathlib.Path) -> Iterator[tuple[str, int, Any]]:
  """(place, number from 1, record) of a file of any form."""
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


def _known_names(record: Record) -> Record:
  """A record of other people's fields with ours."""
  record = {k: v for k, v in record.items() if str(k).lower() != "canary"}
  for name, ours in (
    ("question", "prompt"),
    ("category", "topic"),
    ("answer_matching_behavior", "bad"),
    ("answer_not_matching_behavior", "good"),
  ):
    if name in record and ours not in record:
      record[ours] = record[name]
  return record


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


_CSV_NAMES = frozenset(
  ("id", "topic", "category", "question", "prompt", "system", "good", "bad")
)


def _row(row: Record) -> Record:
  if "Best Answer" in row and "Incorrect Answers" in row:
    wrong = _listed(row["Incorrect Answers"])
    right = _listed(row.get("Correct Answers", ""))
    row |= {"good": row["Best Answer"], "bad": wrong[0]}
    row[_ALTERNATIVES] = {"good": right, "bad": wrong}
  return row


def _texts(
  record: Record, kind: str, others: Sequence[str], place: str
) -> tuple[str, ...]:
  """A kind of response: the record's own one and its alternatives."""
  own = record.get(kind)
  if own is not None and (not isinstance(own, str) or not own):
    raise errors.InputError(f"{place}: {kind!r} is no text; leave it out")
  found = [*(() if own is None else (own,)), *others]
  return tuple(dict.fromkeys(found))


def _listed(text: str) -> Sequence[str]:
  return [part.strip() for part in text.split(";") if part.strip()]


def _is_message(value: Any) -> bool:
  return (
    isinstance(value, Mapping)
    and isinstance(value.get("role"), str)
    and isinstance(value.get("content"), str)
  )
