# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Asks a chat model, again where that may help, and never the same twice.

Replies are kept on disk by what was asked, so that a resumed job goes on where
it was.
"""

import collections.abc
import concurrent.futures
import dataclasses
import json
import pathlib
import random
import re
import threading
import time
from typing import Any

from sae_jax import artifacts, errors
from sae_jax.endpoint import config as config_lib
from sae_jax.endpoint import transport

_FIRST_WAIT = 1.0  # seconds before the first retry; doubles with each
_LONGEST_WAIT = 60.0
# So many requests in a row without an answer, all retries included: the
# endpoint is down, and waiting for each of the others would take hours.
_GIVE_UP_AFTER = 3
_QUOTED = 300  # characters of a strange reply that are passed on
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)

Message = dict[str, str]  # {"role": …, "content": …}


@dataclasses.dataclass(frozen=True)
class Reply:
  """What the model said.

  Attributes:
    text: of the first choice, never empty.
    model: the model's id as the server gave it (configs name aliases).
    raw: the server's whole answer.
  """

  text: str
  model: str
  raw: dict[str, Any]

  @property
  def answer(self) -> str:
    """The text without what a reasoning model thought aloud before it.

    Some chat templates open the thought themselves; then the text only ends it.
    """
    return _THOUGHTS.sub("", self.text).rpartition("</think>")[2]


class Endpoint:
  """An endpoint that may be asked from several threads.

  Raises:
    errors.InputError: the key's environment variable is missing or malformed.
  """

  def __init__(
    self,
    config: config_lib.EndpointConfig,
    cache: pathlib.Path | None = None,
    *,
    sleep: collections.abc.Callable[[float], None] = time.sleep,
  ):
    self.config = config
    self._cache = cache
    self._sleep = sleep
    self._transport = transport.Transport(config)
    self._lock = threading.Lock()
    self._stopped = False
    self._failed_in_a_row = 0

  @property
  def down(self) -> bool:
    """Whether so many requests in a row got no answer that none is sent."""
    return self._failed_in_a_row >= _GIVE_UP_AFTER

  def check(self) -> None:
    """Asks for one word, so that a wrong setting shows before long work.

    Raises:
      errors.InputError: the endpoint cannot be reached or refuses to answer.
    """
    body = self._body([{"role": "user", "content": "Answer with: ok"}])
    try:
      self._send(body)
    except transport.EndpointError as error:
      raise errors.InputError(
        f"the endpoint does not work: {error}; correct the endpoint config,"
        " start the server, or leave out what asks it (labels, an llm judge)"
      ) from None

  def ask(self, messages: list[Message]) -> Reply:
    """One reply; from the cache if the same was asked before.

    Raises:
      EndpointError: there is none, after all retries.
    """
    body = self._body(messages)
    path = self._path(body)
    if path is not None and (kept := artifacts.read_json(path)) is not None:
      return _reply(kept["raw"], self.config.model)
    if self.down:
      raise transport.EndpointError(
        f"not asked: {self._transport.url} failed {_GIVE_UP_AFTER} requests in"
        " a row"
      )
    try:
      reply = self._send(body)
    except transport.Transient:
      with self._lock:
        self._failed_in_a_row += 1
      raise
    with self._lock:
      self._failed_in_a_row = 0
    if path is not None:
      path.parent.mkdir(parents=True, exist_ok=True)
      artifacts.write_json_atomic(path, {"request": body, "raw": reply.raw})
    return reply

  def ask_all(
    self, conversations: collections.abc.Sequence[list[Message]]
  ) -> list[Reply | transport.EndpointError]:
    """`ask` of each, several at a time; a failure stands in its place."""
    bodies = [self._body(messages) for messages in conversations]
    keys = [artifacts.hash_json(body) for body in bodies]
    once = dict(zip(keys, conversations, strict=True))  # equal ones only once

    def ask(messages: list[Message]) -> Reply | transport.EndpointError:
      try:
        return self.ask(messages)
      except transport.EndpointError as error:
        return error

    with concurrent.futures.ThreadPoolExecutor(self.config.concurrency) as pool:
      waiting = {key: pool.submit(ask, value) for key, value in once.items()}
      try:
        return [waiting[key].result() for key in keys]
      except BaseException:
        self._stopped = True  # Ctrl-C does not wait for retries
        pool.shutdown(wait=False, cancel_futures=True)
        raise

  def _body(self, messages: list[Message]) -> dict[str, Any]:
    body: dict[str, Any] = {"model": self.config.model, "messages": messages}
    if self.config.temperature is not None:
      body["temperature"] = self.config.temperature
    if self.config.max_tokens:
      body["max_tokens"] = self.config.max_tokens
    return body | self.config.extra

  def _path(self, body: dict[str, Any]) -> pathlib.Path | None:
    if self._cache is None:
      return None
    return (
      self._cache / f"{artifacts.hash_json([self._transport.url, body])}.json"
    )

  def _send(self, body: dict[str, Any]) -> Reply:
    """Tries, waits, tries again."""
    # Seeded by the request: runs are alike, requests do not retry in step.
    jitter = random.Random(artifacts.hash_json(body))
    for attempt in range(self.config.retries + 1):
      try:
        return _reply(self._transport.post(body), self.config.model)
      except transport.Transient as error:
        if attempt == self.config.retries or self._stopped:
          raise
        wait = _FIRST_WAIT * 2**attempt * jitter.uniform(0.5, 1.0)
        if error.wait is not None:
          wait = max(wait, error.wait)
        self._sleep(min(wait, _LONGEST_WAIT))
    raise AssertionError("unreachable: the last attempt raises")


def _reply(raw: Any, asked: str) -> Reply:
  """Takes a chat completion apart."""
  try:
    choice = raw["choices"][0]
    text = choice["message"]["content"]
  except (KeyError, IndexError, TypeError):
    message = transport.message(json.dumps(raw).encode())[:_QUOTED]
    raise transport.Transient(
      f"the reply is no chat completion (it has no choices): {message}"
    ) from None
  if not isinstance(text, str) or not text.strip():
    reason = choice.get("finish_reason")
    hint = "; raise endpoint.max_tokens" if reason == "length" else ""
    raise transport.EndpointError(
      f"the reply is empty (finish_reason {reason}){hint}"
    )
  return Reply(text, str(raw.get("model") or asked), raw)
