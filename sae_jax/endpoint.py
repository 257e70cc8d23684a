# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Asks a chat model over an OpenAI-compatible HTTP endpoint, local or remote.

Nothing is contacted unless a config names an endpoint. The key comes from an
environment variable and is in no file, log or message. Replies are kept on
disk by what was asked, so that a resumed job does not ask twice.
"""

import collections.abc
import concurrent.futures
import dataclasses
import email.utils
import http.client
import json
import os
import pathlib
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from sae_jax import artifacts, errors, version

_FIRST_WAIT = 1.0  # seconds before the first retry; doubles with each
_LONGEST_WAIT = 60.0
_LARGEST_REPLY = 16 << 20  # bytes
_QUOTED = 300  # characters of a server's message that are passed on
# So many requests in a row without an answer, all retries included: the
# endpoint is down, and waiting for each of the others would take hours.
_GIVE_UP_AFTER = 3
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_RETRIED = frozenset({408, 409, 425, 429})  # and all from 500

Message = dict[str, str]  # {"role": …, "content": …}


class EndpointError(Exception):
  """A request that got no usable reply; the message says why."""


class _Transient(EndpointError):
  """May work when it is tried again; `wait` is the server's wish, seconds."""

  def __init__(self, message: str, wait: float | None = None):
    super().__init__(message)
    self.wait = wait


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
    """The text without what a reasoning model thought aloud before it."""
    return _THOUGHTS.sub("", self.text)


class Endpoint:
  """An endpoint that may be asked from several threads.

  Raises:
    errors.InputError: the key's environment variable is missing or malformed.
  """

  def __init__(
    self,
    config: EndpointConfig,
    cache: pathlib.Path | None = None,
    *,
    sleep: collections.abc.Callable[[float], None] = time.sleep,
  ):
    self.config = config
    self._cache = cache
    self._sleep = sleep
    self._key = _key(config)
    self._url = config.base_url.rstrip("/") + "/chat/completions"
    self._opener = _opener(config)
    self._lock = threading.Lock()
    self._stopped = False
    self._failed_in_a_row = 0

  def check(self) -> None:
    """Asks for one word, so that a wrong setting shows before long work.

    Raises:
      errors.InputError: the endpoint cannot be reached or refuses to answer.
    """
    body = self._body([{"role": "user", "content": "Answer with: ok"}])
    try:
      self._send(body)
    except EndpointError as error:
      raise errors.InputError(
        f"the endpoint for labels does not work: {error}; correct the endpoint"
        " config, start the server, or leave labels out"
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
    if self._failed_in_a_row >= _GIVE_UP_AFTER:
      raise EndpointError(
        f"not asked: {self._url} failed {_GIVE_UP_AFTER} requests in a row"
      )
    try:
      reply = self._send(body)
    except _Transient:
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
  ) -> list[Reply | EndpointError]:
    """`ask` of each, several at a time; a failure stands in its place."""
    bodies = [self._body(messages) for messages in conversations]
    keys = [artifacts.hash_json(body) for body in bodies]
    once = dict(zip(keys, conversations, strict=True))  # equal ones only once

    def ask(messages: list[Message]) -> Reply | EndpointError:
      try:
        return self.ask(messages)
      except EndpointError as error:
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
    return self._cache / f"{artifacts.hash_json([self._url, body])}.json"

  def _send(self, body: dict[str, Any]) -> Reply:
    """Tries, waits, tries again."""
    # Seeded by the request: runs are alike, requests do not retry in step.
    jitter = random.Random(artifacts.hash_json(body))
    for attempt in range(self.config.retries + 1):
      try:
        return _reply(self._post(body), self.config.model)
      except _Transient as error:
        if attempt == self.config.retries or self._stopped:
          raise
        wait = _FIRST_WAIT * 2**attempt * jitter.uniform(0.5, 1.0)
        if error.wait is not None:
          wait = max(wait, error.wait)
        self._sleep(min(wait, _LONGEST_WAIT))
    raise AssertionError("unreachable: the last attempt raises")

  def _post(self, body: dict[str, Any]) -> Any:
    """The server's answer as JSON."""
    headers = {
      "Content-Type": "application/json",
      "User-Agent": f"sae_jax/{version.__version__}",
    }
    if self._key:
      headers["Authorization"] = f"Bearer {self._key}"
    request = urllib.request.Request(
      self._url, json.dumps(body).encode(), headers, method="POST"
    )
    try:
      with self._opener.open(request, timeout=self.config.timeout) as answer:
        data = answer.read(_LARGEST_REPLY + 1)
    except urllib.error.HTTPError as error:
      with error:
        raise self._refusal(error) from None
    except TimeoutError:
      raise self._slow() from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
      reason = getattr(error, "reason", error)
      if isinstance(reason, TimeoutError):
        raise self._slow() from None
      raise _Transient(
        f"{self._url}: {self._clean(str(reason) or type(reason).__name__)}"
      ) from None
    if len(data) > _LARGEST_REPLY:
      raise EndpointError(f"{self._url}: a reply over {_LARGEST_REPLY} bytes")
    if self._key:  # a server that echoes it: replies are kept on disk
      data = data.replace(self._key.encode(), b"[key]")
    try:
      return json.loads(data)
    except ValueError:
      text = self._clean(data.decode(errors="replace"))
      raise _Transient(
        f"{self._url}: its reply is not JSON: {text!r}"
      ) from None

  def _slow(self) -> _Transient:
    return _Transient(
      f"{self._url}: no answer in {self.config.timeout:g} s; raise"
      " endpoint.timeout if the model is slow"
    )

  def _refusal(self, error: urllib.error.HTTPError) -> EndpointError:
    """The error to raise for a status that is not 200."""
    if error.code in (401, 403):
      # Not quoted: such messages show parts of the key.
      source = (
        f"the key in ${self.config.key_variable}"
        if self._key
        else "a request without a key (set endpoint.key_variable)"
      )
      return EndpointError(f"{self._url} refused {source} (HTTP {error.code})")
    if 300 <= error.code < 400:
      return EndpointError(
        f"{self._url} redirects (HTTP {error.code}), which is not followed as"
        " the key would go with it; give the final URL"
      )
    try:
      text = _message(error.read(_LARGEST_REPLY))
    except (http.client.HTTPException, OSError):
      text = ""
    text = f"{self._url}: HTTP {error.code}: {self._clean(text)}"
    if error.code in _RETRIED or error.code >= 500:
      return _Transient(text, _retry_after(error.headers.get("Retry-After")))
    return EndpointError(text)

  def _clean(self, text: str) -> str:
    """A server's words, short and without the key should it echo it."""
    if self._key:
      text = text.replace(self._key, "[key]")
    text = " ".join(text.split())
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "…"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
  """urllib would send the key along to wherever a redirect points."""

  def redirect_request(self, req, fp, code, msg, headers, newurl):
    return None


def _opener(config: EndpointConfig) -> urllib.request.OpenerDirector:
  """Goes through the environment's proxy, but not to this machine itself."""
  handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
  host = urllib.parse.urlsplit(config.base_url).hostname or ""
  if host in ("localhost", "::1") or host.startswith("127."):
    handlers.append(urllib.request.ProxyHandler({}))
  return urllib.request.build_opener(*handlers)


def _key(config: EndpointConfig) -> str:
  if not config.key_variable:
    return ""
  key = os.environ.get(config.key_variable, "").strip()
  if not key:
    raise errors.InputError(
      f"endpoint.key_variable={config.key_variable!r}: this environment"
      " variable is not set; set it to the key, or leave the field empty for"
      " an endpoint without one"
    )
  if not (key.isascii() and key.isprintable()) or " " in key:
    raise errors.InputError(
      f"the environment variable {config.key_variable} holds spaces or"
      " characters that no key has; set it to the bare key"
    )
  return key


def _reply(raw: Any, asked: str) -> Reply:
  """Takes a chat completion apart."""
  try:
    choice = raw["choices"][0]
    text = choice["message"]["content"]
  except (KeyError, IndexError, TypeError):
    message = _message(json.dumps(raw).encode())[:_QUOTED]
    raise _Transient(
      f"the reply is no chat completion (it has no choices): {message}"
    ) from None
  if not isinstance(text, str) or not text.strip():
    reason = choice.get("finish_reason")
    hint = "; raise endpoint.max_tokens" if reason == "length" else ""
    raise EndpointError(f"the reply is empty (finish_reason {reason}){hint}")
  return Reply(text, str(raw.get("model") or asked), raw)


def _message(data: bytes) -> str:
  """The message in a server's error, whatever it is wrapped in."""
  text = data.decode(errors="replace")
  try:
    value = json.loads(text)
  except ValueError:
    return text
  for name in ("error", "message", "detail"):
    if isinstance(value, dict) and value.get(name):
      value = value[name]
  return value if isinstance(value, str) else json.dumps(value)


def _retry_after(value: str | None) -> float | None:
  """Seconds of a Retry-After header: a number, or a date."""
  if value is None:
    return None
  try:
    return max(0.0, float(value))
  except ValueError:
    pass
  try:
    date = email.utils.parsedate_to_datetime(value)
  except ValueError:
    return None
  return max(0.0, date.timestamp() - time.time())
