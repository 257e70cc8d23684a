# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One POST to a server: JSON out, JSON in, or the reason why not.

The key is sent to the one URL that was given, and is in no message, nor in what
is passed on of a reply.
"""

import email.utils
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from sae_jax import version
from sae_jax.endpoint import config as config_lib

_LARGEST_REPLY = 16 << 20  # bytes
_QUOTED = 300  # characters of a server's message that are passed on
_RETRIED = frozenset({408, 409, 425, 429})  # and all from 500


class EndpointError(Exception):
  """A request that got no usable reply; the message says why."""


class Transient(EndpointError):
  """May work when it is tried again; `wait` is the server's wish, seconds."""

  def __init__(self, message: str, wait: float | None = None):
    super().__init__(message)
    self.wait = wait


class Transport:
  """Posts to the chat completions of an endpoint."""

  def __init__(self, config: config_lib.EndpointConfig):
    self.config = config
    self.url = config.base_url.rstrip("/") + "/chat/completions"
    self._key = config_lib.key(config)
    self._opener = _opener(config)

  def post(self, body: dict[str, Any]) -> Any:
    """The server's answer as JSON.

    Raises:
      Transient: there is none, and there may be one later.
      EndpointError: there is none.
    """
    headers = {
      "Content-Type": "application/json",
      "User-Agent": f"sae_jax/{version.__version__}",
    }
    if self._key:
      headers["Authorization"] = f"Bearer {self._key}"
    request = urllib.request.Request(
      self.url, json.dumps(body).encode(), headers, method="POST"
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
      raise Transient(
        f"{self.url}: {self.clean(str(reason) or type(reason).__name__)}"
      ) from None
    if len(data) > _LARGEST_REPLY:
      raise EndpointError(f"{self.url}: a reply over {_LARGEST_REPLY} bytes")
    if self._key:  # a server that echoes it: replies are kept on disk
      data = data.replace(self._key.encode(), b"[key]")
    try:
      return json.loads(data)
    except ValueError:
      text = self.clean(data.decode(errors="replace"))
      raise Transient(f"{self.url}: its reply is not JSON: {text!r}") from None

  def _slow(self) -> Transient:
    return Transient(
      f"{self.url}: no answer in {self.config.timeout:g} s; raise"
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
      return EndpointError(f"{self.url} refused {source} (HTTP {error.code})")
    if 300 <= error.code < 400:
      return EndpointError(
        f"{self.url} redirects (HTTP {error.code}), which is not followed as"
        " the key would go with it; give the final URL"
      )
    try:
      text = message(error.read(_LARGEST_REPLY))
    except (http.client.HTTPException, OSError):
      text = ""
    text = f"{self.url}: HTTP {error.code}: {self.clean(text)}"
    if error.code in _RETRIED or error.code >= 500:
      return Transient(text, _retry_after(error.headers.get("Retry-After")))
    return EndpointError(text)

  def clean(self, text: str) -> str:
    """A server's words, short and without the key should it echo it."""
    if self._key:
      text = text.replace(self._key, "[key]")
    text = " ".join(text.split())
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "…"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
  """urllib would send the key along to wherever a redirect points."""

  def redirect_request(self, req, fp, code, msg, headers, newurl):
    return None


def _opener(config: config_lib.EndpointConfig) -> urllib.request.OpenerDirector:
  """Goes through the environment's proxy, but not to this machine itself."""
  handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
  host = urllib.parse.urlsplit(config.base_url).hostname or ""
  if host in ("localhost", "::1") or host.startswith("127."):
    handlers.append(urllib.request.ProxyHandler({}))
  return urllib.request.build_opener(*handlers)


def message(data: bytes) -> str:
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
