# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Prompts and their responses as tokens: what every model of a diff reads."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from sae_jax import errors
from sae_jax.judge import config as config_lib
from sae_jax.lm import tokenizer as tokenizer_lib


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One prompt; `tokens` end where a response begins."""

  id: str
  topic: str  # "" where the file says none
  tokens: tuple[int, ...]
  responses: Mapping[str, tuple[int, ...]]  # field -> tokens, without BOS


@dataclasses.dataclass(frozen=True)
class Sequence:
  """What is fed to a model: a prompt, with or without a response."""

  prompt: int  # index in Prompts.prompts
  tokens: tuple[int, ...]
  response_start: int  # = len(tokens) where there is none

  def span(self, scope: str) -> tuple[int, int]:
    """The positions [a, b) that a scope counts."""
    start, end = self.response_start, len(self.tokens)
    return {
      "prompt": (0, start),
      "prompt_last": (start - 1, start),
      "response": (start, end),
      "all": (0, end),
    }[scope]


@dataclasses.dataclass(frozen=True)
class Prompts:
  """All prompts of a file in its order."""

  prompts: tuple[Prompt, ...]
  behaviour: str
  contrast: str
  appended: tuple[str, ...]
  path: str

  @property
  def pairs(self) -> tuple[int, ...]:
    """Indices of the prompts that have both kinds of response."""
    both = (self.behaviour, self.contrast)
    return tuple(
      i
      for i, prompt in enumerate(self.prompts)
      if all(field in prompt.responses for field in both)
    )

  def sequences(self, scope: str) -> list[Sequence]:
    """The sequences that a scope needs, in order of prompt.

    Raises:
      errors.InputError: the scope has responses and no prompt has one.
    """
    if scope in ("prompt", "prompt_last"):
      return [
        Sequence(i, prompt.tokens, len(prompt.tokens))
        for i, prompt in enumerate(self.prompts)
      ]
    found = [
      Sequence(i, prompt.tokens + prompt.responses[field], len(prompt.tokens))
      for i, prompt in enumerate(self.prompts)
      for field in self.appended
      if field in prompt.responses
    ]
    if not found:
      raise errors.InputError(
        f"scope={scope!r} needs responses, but no line of {self.path} has a"
        f" field of {', '.join(self.appended)}; add one, name the fields in"
        " prompts.forced, or use scope='prompt'"
      )
    return found


def spans(
  prompts: Prompts, scope: str, skip: int = 1
) -> list[tuple[tuple[int, ...], int, int]]:
  """(tokens, a, b) of every sequence of a scope: positions [a, b) count.

  Args:
    skip: positions at each sequence's start that never count: BOS and
      attention sinks.
  """
  found = []
  for sequence in prompts.sequences(scope):
    start, stop = sequence.span(scope)
    start = max(start, skip)
    found.append((sequence.tokens, start, max(start, stop)))
  return found


def load(
  config: config_lib.PromptsConfig, tokenizer: tokenizer_lib.Tokenizer
) -> Prompts:
  """Reads and tokenises the prompts.

  Raises:
    errors.InputError: the file cannot be read or has a bad line (named by its
      number), or no prompt is left.
  """
  path = pathlib.Path(config.path).expanduser()
  try:
    lines = path.read_text(encoding="utf-8").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise errors.InputError(
      f"prompts.path={path}: cannot be read ({error})"
    ) from error
  chat = tokenizer.has_chat_template if config.chat is None else config.chat
  prompts: list[Prompt] = []
  seen: dict[str, int] = {}
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    place = f"{path}:{number}"
    record = _record(line, place)
    topic = str(record.get("topic", ""))
    if config.topics and topic not in config.topics:
      continue
    name = str(record.get("id", number))
    if name in seen:
      raise errors.InputError(
        f"{place}: id {name!r} is also in line {seen[name]}; ids are unique"
      )
    seen[name] = number
    tokens = _tokens(record, place, config, tokenizer, chat)
    responses = {
      field: _response(record, field, place, tokenizer)
      for field in dict.fromkeys(
        (config.behaviour, config.contrast, *config.appended)
      )
      if record.get(field) is not None
    }
    prompts.append(Prompt(name, topic, tokens, responses))
    if len(prompts) == config.limit:
      break
  if not prompts:
    topics = f" of topics {', '.join(config.topics)}" if config.topics else ""
    raise errors.InputError(f"{path}: there are no prompts{topics} in it")
  return Prompts(
    tuple(prompts),
    config.behaviour,
    config.contrast,
    config.appended,
    str(path),
  )


def _record(line: str, place: str) -> dict[str, Any]:
  try:
    record = json.loads(line)
  except ValueError as error:
    raise errors.InputError(f"{place}: not valid JSON ({error})") from error
  if not isinstance(record, dict):
    raise errors.InputError(
      f'{place}: not a JSON object; write {{"prompt": "…"}}'
    )
  return record


def _tokens(
  record: dict[str, Any],
  place: str,
  config: config_lib.PromptsConfig,
  tokenizer: tokenizer_lib.Tokenizer,
  chat: bool,
) -> tuple[int, ...]:
  messages: Any = record.get("messages")
  if messages is None:
    prompt = record.get("prompt")
    if not isinstance(prompt, str) or not prompt:
      raise errors.InputError(
        f'{place}: there is neither a "prompt" (text) nor "messages"; fields'
        f" here: {', '.join(sorted(record)) or 'none'}"
      )
    if not chat:
      return tuple(tokenizer.encode(prompt))
    messages = [{"role": "user", "content": prompt}]
  if config.system:
    messages = [{"role": "system", "content": config.system}, *messages]
  try:
    return tuple(tokenizer.apply_chat(messages, add_generation_prompt=True))
  except errors.InputError as error:
    raise errors.InputError(f"{place}: {error}") from error


def _response(
  record: dict[str, Any],
  field: str,
  place: str,
  tokenizer: tokenizer_lib.Tokenizer,
) -> tuple[int, ...]:
  value = record[field]
  tokens = (
    tokenizer.encode(value, add_bos=False) if isinstance(value, str) else []
  )
  if not tokens:
    raise errors.InputError(f"{place}: {field!r} is no text; leave it out")
  return tuple(tokens)
