# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Prompts as text, for those who read and judge answers to them."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sae_jax import errors
from sae_jax.judge import config as config_lib
from sae_jax.judge import prompt_files

Record = prompt_files.Record


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
    others = record.get(prompt_files.ALTERNATIVES, {})
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
  for place, number, record in prompt_files.read(path):
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


def _texts(
  record: Record, kind: str, others: Sequence[str], place: str
) -> tuple[str, ...]:
  """A kind of response: the record's own one and its alternatives."""
  own = record.get(kind)
  if own is not None and (not isinstance(own, str) or not own):
    raise errors.InputError(f"{place}: {kind!r} is no text; leave it out")
  found = [*(() if own is None else (own,)), *others]
  return tuple(dict.fromkeys(found))


def _is_message(value: Any) -> bool:
  return (
    isinstance(value, Mapping)
    and isinstance(value.get("role"), str)
    and isinstance(value.get("content"), str)
  )
