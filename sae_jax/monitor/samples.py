# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The samples of a fine-tuning set, as text and as tokens.

Reads JSONL lines of a prompt and a completion, or of chat messages that end
with the assistant's.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from sae_jax import errors
from sae_jax.lm import records
from sae_jax.lm import tokenizer as tokenizer_lib
from sae_jax.monitor import config as config_lib


@dataclasses.dataclass(frozen=True)
class Sample:
  """One line.

  Attributes:
    reference: what the completion is compared with; None where the model is to
      write it, or there is nothing.
    bad: what the label says; None without labels.
  """

  id: str
  line: int
  prompt: tuple[int, ...]
  completion: tuple[int, ...]
  reference: tuple[int, ...] | None
  bad: bool | None
  prompt_text: str
  completion_text: str
  reference_text: str


def load(
  config: config_lib.ScreeningConfig,
  tokenizer: tokenizer_lib.Tokenizer,
  positions: int = 0,
) -> list[Sample]:
  """The samples in the file's order.

  Args:
    config: the file and its fields.
    tokenizer: the base model's.
    positions: the most tokens that the model can take; 0: no limit.

  Raises:
    errors.InputError: the file cannot be read, or a line has no prompt,
      completion, reference or label, or is too long; it names the line.
  """
  file = pathlib.Path(config.path).expanduser()
  found = []
  for place, record in records.read(file, "jsonl"):
    if not isinstance(record, Mapping):
      raise errors.InputError(
        f'{place}: not a JSON object; write {{"prompt": "…", …}}'
      )
    sample = _sample(config, tokenizer, record, place)
    _check_length(config, sample, positions, place)
    found.append(sample)
    if len(found) == config.limit:
      break
  if not found:
    raise errors.InputError(f"{file}: there are no samples in it")
  return found


def _sample(
  config: config_lib.ScreeningConfig,
  tokenizer: tokenizer_lib.Tokenizer,
  record: Mapping[str, Any],
  place: str,
) -> Sample:
  messages, at, field = records.completion(record, config.completion)
  completion = _text(at, field, place)
  prompt, shown = _prompt(config, tokenizer, messages, record, place)
  reference_text, reference = "", None
  if config.reference and config.reference != config_lib.OWN_ANSWER:
    reference_text = _text(record, config.reference, place)
    reference = _encode(tokenizer, reference_text, place)
  return Sample(
    id=str(record.get("id", place.rpartition(":")[2])),
    line=int(place.rpartition(":")[2]),
    prompt=prompt,
    completion=_encode(tokenizer, completion, place),
    reference=reference,
    bad=_label(config, record, place),
    prompt_text=shown,
    completion_text=completion,
    reference_text=reference_text,
  )


def _prompt(
  config: config_lib.ScreeningConfig,
  tokenizer: tokenizer_lib.Tokenizer,
  messages: Any,
  record: Mapping[str, Any],
  place: str,
) -> tuple[tuple[int, ...], str]:
  """Tokens up to where the completion begins, and the text for people."""
  if messages is None:
    text = _text(record, "prompt", place)
    chat = tokenizer.has_chat_template if config.chat is None else config.chat
    if not chat:
      return _encode(tokenizer, text, place, bos=None), text
    messages = [{"role": "user", "content": text}]
  if config.system:
    messages = [{"role": "system", "content": config.system}, *messages]
  if not isinstance(messages, list) or not all(map(_is_message, messages)):
    raise errors.InputError(
      f'{place}: "messages" is no list of {{"role": "…", "content": "…"}}'
    )
  shown = "\n".join(m["content"] for m in messages if m["role"] != "system")
  try:
    tokens = tokenizer.apply_chat(messages, add_generation_prompt=True)
  except errors.InputError as error:
    raise errors.InputError(f"{place}: {error}") from error
  return tuple(tokens), shown


def _label(
  config: config_lib.ScreeningConfig, record: Mapping[str, Any], place: str
) -> bool | None:
  if not config.label:
    return None
  value = record.get(config.label)
  if value is None:
    raise errors.InputError(
      f"{place}: there is no label {config.label!r}; fields here:"
      f" {', '.join(sorted(map(str, record)))}"
    )
  if isinstance(value, bool):
    value = str(value).lower()
  return str(value) == config.bad


def _text(record: Mapping[str, Any], field: str, place: str) -> str:
  value = record.get(field)
  if not isinstance(value, str) or not value:
    raise errors.InputError(
      f"{place}: the field {field!r} is no text; fields here:"
      f" {', '.join(sorted(map(str, record))) or 'none'}"
    )
  return value


def _encode(
  tokenizer: tokenizer_lib.Tokenizer,
  text: str,
  place: str,
  bos: bool | None = False,
) -> tuple[int, ...]:
  tokens = tuple(tokenizer.encode(text, add_bos=bos))
  if not tokens:
    raise errors.InputError(f"{place}: {text!r} has no tokens; leave it out")
  return tokens


def _check_length(
  config: config_lib.ScreeningConfig, sample: Sample, positions: int, place: str
) -> None:
  after = [len(sample.completion), len(sample.reference or ())]
  if config.reference == config_lib.OWN_ANSWER:
    after.append(config.max_new_tokens)
  if positions and len(sample.prompt) + max(after) > positions:
    raise errors.InputError(
      f"{place}: {len(sample.prompt)} tokens of prompt and {max(after)} after"
      f" it are more than the model's {positions} positions; shorten the line,"
      " or screening.max_new_tokens where the model answers"
    )


def _is_message(value: Any) -> bool:
  return (
    isinstance(value, Mapping)
    and isinstance(value.get("role"), str)
    and isinstance(value.get("content"), str)
  )
