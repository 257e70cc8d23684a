# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""JSONL files of prompts and completions, as tokens.

Every line is `{"prompt": text}` or `{"messages": [...]}` with one field per
kind of completion; mistakes are named by file and line.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sae_jax import errors
from sae_jax.judge import prompts as prompts_lib
from sae_jax.lm import records as records_lib
from sae_jax.lm import tokenizer as tokenizer_lib
from sae_jax.posttrain import config as config_lib
from sae_jax.posttrain import data


def examples(
  config: config_lib.DataConfig,
  tokenizer: tokenizer_lib.Tokenizer,
  positions: int = 0,
) -> list[data.Example]:
  """What a run learns, in the file's order.

  Args:
    config: the file and how it is read.
    tokenizer: the model's.
    positions: the most tokens that the model can take; 0: no limit.

  Raises:
    errors.InputError: the file cannot be read, a line is wrong or too long, or
      there is nothing to learn in it.
  """
  limit = min(config.max_length, positions or config.max_length)
  found = []
  for place, record in _records(config.path, config.topics, config.limit):
    messages, at, field = records_lib.completion(record, config.completion)
    text = _text(at, field, place)
    prompt = prompts_lib.prompt_tokens(
      {**record, "messages": messages},
      place,
      tokenizer,
      chat=config.chat,
      system=config.system,
    )
    completion = tokenizer.encode(text, add_bos=False)
    if config.stop and tokenizer.eos_id is not None:
      completion = [*completion, tokenizer.eos_id]
    length = len(prompt) + len(completion)
    if length > limit:
      raise errors.InputError(
        f"{place}: {len(prompt)} tokens of prompt and {len(completion)} of"
        f" {config.completion!r} are {length}, more than"
        + (
          f" data.max_length={limit}; raise it or shorten the line"
          if limit == config.max_length
          else f" the model's {limit} positions; shorten the line"
        )
      )
    if not prompt:
      raise errors.InputError(
        f"{place}: the prompt has no tokens; write at least one word"
      )
    found.append(
      data.Example(
        (*prompt, *completion),
        (False,) * len(prompt) + (True,) * len(completion),
      )
    )
  if not found:
    of = f" of topics {', '.join(config.topics)}" if config.topics else ""
    raise errors.InputError(f"{config.path}: there are no records{of} in it")
  return found


def _records(
  path: str, topics: Sequence[str], limit: int
) -> Iterator[tuple[str, Mapping[str, Any]]]:
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise errors.InputError(f"{path}: no such file; give a JSONL file")
  count = 0
  for place, record in records_lib.read(file, "jsonl"):
    if not isinstance(record, Mapping):
      raise errors.InputError(
        f'{place}: not a JSON object; write {{"prompt": "…", …}}'
      )
    if topics and str(record.get("topic", "")) not in topics:
      continue
    yield place, record
    count += 1
    if count == limit:
      return


def _text(record: Mapping[str, Any], field: str, place: str) -> str:
  value = record.get(field)
  if not isinstance(value, str) or not value:
    have = ", ".join(sorted(map(str, record))) or "none"
    shown = "missing" if value is None else repr(value)
    raise errors.InputError(
      f"{place}: the field {field!r} is {shown}; it must be some text (fields"
      f" here: {have})"
    )
  return value
