# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Where a chat model answers, and with which key."""

import dataclasses
import os
import urllib.parse
from typing import Any

from sae_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointConfig:
  """Where a chat model answers, and how it is asked.

  Made for llama.cpp's server, vLLM, and hosted services alike:
  `POST {base_url}/chat/completions`.
  """

  base_url: str  # such as "http://localhost:8080/v1"
  model: str  # as the endpoint calls it
  # The environment variable that holds the key; "": no key is sent.
  key_variable: str = ""
  timeout: float = 120.0  # seconds without a byte from the server
  retries: int = 5  # after 429, 5xx, a timeout or a broken reply
  concurrency: int = 4  # requests at a time
  temperature: float | None = 0.0  # None: left to the server
  max_tokens: int = 1024  # of a reply; 0: left to the server
  # Further fields of the request, such as {"reasoning_effort": "low"}.
  extra: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    url = urllib.parse.urlsplit(self.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
      raise errors.InputError(
        f"endpoint.base_url={self.base_url!r}: give an http(s) URL such as"
        " http://localhost:8080/v1"
      )
    if url.username or url.password or url.query or url.fragment:
      # Not shown: it may hold a secret, and configs are written to disk.
      raise errors.InputError(
        f"endpoint.base_url of {url.hostname} holds a user name, a query or a"
        " fragment; give the bare URL, and the key through key_variable"
      )
    if not self.model:
      raise errors.InputError("endpoint.model is empty; name the model to ask")
    for name, least in (("retries", 0), ("concurrency", 1), ("max_tokens", 0)):
      if getattr(self, name) < least:
        raise errors.InputError(
          f"endpoint.{name}={getattr(self, name)}: give a number >= {least}"
        )
    if not self.timeout > 0:
      raise errors.InputError(
        f"endpoint.timeout={self.timeout}: give seconds > 0"
      )


def key(config: EndpointConfig) -> str:
  """The key, from the environment; "" where none is asked for.

  Raises:
    errors.InputError: the variable is missing, or holds no key.
  """
  if not config.key_variable:
    return ""
  value = os.environ.get(config.key_variable, "").strip()
  if not value:
    raise errors.InputError(
      f"endpoint.key_variable={config.key_variable!r}: this environment"
      " variable is not set; set it to the key, or leave the field empty for"
      " an endpoint without one"
    )
  if not (value.isascii() and value.isprintable()) or " " in value:
    raise errors.InputError(
      f"the environment variable {config.key_variable} holds spaces or"
      " characters that no key has; set it to the bare key"
    )
  return value
