# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What behaviour is read from: the prompts and their responses."""

import dataclasses

from sae_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptsConfig:
  """Prompts and, where a method needs them, responses of both kinds.

  `path` is a JSONL file: `{"id", "topic", "prompt" or "messages", and one field
  per kind of response}`, such as `"good"` and `"bad"`.
  """

  path: str
  chat: bool | None = None  # through the chat template; None: if there is one
  system: str = ""  # system message; "": none (templates may have their own)
  behaviour: str = "bad"  # field of the response that shows the behaviour
  contrast: str = "good"  # field of the one that does not
  # Fields that are appended, one sequence each, for the scopes response and
  # all: every model reads the same responses. (): behaviour and contrast.
  forced: tuple[str, ...] = ()
  topics: tuple[str, ...] = ()  # only these; (): all
  limit: int = 0  # at most so many prompts; 0: all

  def __post_init__(self):
    if not self.path:
      raise errors.InputError("prompts.path is empty; give a JSONL file")
    if self.limit < 0:
      raise errors.InputError(f"prompts.limit={self.limit}: give 0 or more")
    if self.behaviour == self.contrast:
      raise errors.InputError(
        f"prompts.behaviour and prompts.contrast are both {self.contrast!r};"
        " name two response fields"
      )

  @property
  def appended(self) -> tuple[str, ...]:
    return self.forced or (self.behaviour, self.contrast)
