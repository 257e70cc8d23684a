# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Prompts and their responses as tokens: what every model of a diff reads."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from sae_jax import errors
from sae_jax.judge import config as config_lib
from sae_jax.judge import question_sets
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
  """Reads and tokenises the prompts, of any form that `prompt_files` reads.

  A system message goes in front of a prompt without a chat template as text,
  with an empty line between.

  Raises:
    errors.InputError: the file cannot be read or has a bad record (named by its
      place), or no prompt is left.
  """
  prompts: list[Prompt] = []
  for place, record in question_sets.records(config):
    tokens = prompt_tokens(
      record, place, tokenizer, chat=config.chat, system=config.system
    )
    responses = {
      field: _response(record, field, place, tokenizer)
      for field in dict.fromkeys(
        (config.behaviour, config.contrast, *config.appended)
      )
      if record.get(field) is not None
    }
    prompts.append(
      Prompt(record["id"], record["topic"], tuple(tokens), responses)
    )
  return Prompts(
    tuple(prompts),
    config.behaviour,
    config.contrast,
    config.appended,
    str(pathlib.Path(config.path).expanduser()),
  )


def prompt_tokens(
  record: Mapping[str, Any],
  place: str,
  tokenizer: tokenizer_lib.Tokenizer,
  *,
  chat: bool | None,
  system: str = "",
) -> list[int]:
  """The tokens of a record's prompt, up to where a response begins.

  Args:
    record: with a "prompt" or "messages", and maybe a "system" of its own.
    place: of the record, for messages.
    tokenizer: the model's.
    chat: see `PromptsConfig`; without, a system message is text that comes
      first, with an empty line after it. Messages always need a template.
    system: for records without one.

  Raises:
    errors.InputError: there is no prompt, or the template refuses it.
  """
  messages = question_sets.conversation(record, place)
  system = record.get("system") or system
  chat = tokenizer.has_chat_template if chat is None else chat
  if not chat and record.get("messages") is None:
    text = messages[0]["content"]
    return tokenizer.encode(f"{system}\n\n{text}" if system else text)
  if system:
    messages = [{"role": "system", "content": system}, *messages]
  try:
    return tokenizer.apply_chat(messages, add_generation_prompt=True)
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
