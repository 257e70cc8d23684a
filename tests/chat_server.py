# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A chat endpoint on this machine that answers, or fails, as it is told."""

import contextlib
import http.server
import json
import threading
import time


def completion(text, finish="stop", model="tiny-2026"):
  message = {"role": "assistant", "content": text}
  choice = {"index": 0, "message": message, "finish_reason": finish}
  return 200, {"id": "1", "model": model, "choices": [choice]}


class Server:
  """`answer(body, headers)` gives (status, JSON or bytes[, headers]).

  A status of 0 hangs up without a word; a float for the body waits so long.
  """

  def __init__(self, answer):
    self.answer = answer
    self.bodies, self.headers, self.paths = [], [], []
    self.busy = self.most_busy = 0
    self.url = ""
    self._lock = threading.Lock()

  def handle(self, handler):
    body = json.loads(
      handler.rfile.read(int(handler.headers["Content-Length"]))
    )
    with self._lock:
      self.bodies.append(body)
      self.headers.append(dict(handler.headers))
      self.paths.append(handler.path)
      self.busy += 1
      self.most_busy = max(self.most_busy, self.busy)
    status, value, *more = self.answer(body, handler.headers)
    with self._lock:
      self.busy -= 1
    if isinstance(value, float):
      time.sleep(value)
      value = b""
    if not status:
      return
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with contextlib.suppress(ConnectionError):  # the client gave up waiting
      handler.send_response(status)
      for name, text in (more[0] if more else {}).items():
        handler.send_header(name, text)
      handler.send_header("Content-Length", str(len(data)))
      handler.end_headers()
      handler.wfile.write(data)


@contextlib.contextmanager
def serve(answer):
  """Runs a `Server`; its `url` is what a config's base_url takes."""
  server = Server(answer)

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      server.handle(self)

    def do_GET(self):
      server.paths.append(self.path)
      self.send_error(405)

    def log_message(self, *_):
      pass

  with http.server.ThreadingHTTPServer(
    ("127.0.0.1", 0), Handler
  ) as http_server:
    http_server.daemon_threads = True
    http_server.block_on_close = False
    thread = threading.Thread(
      target=http_server.serve_forever, args=(0.01,), daemon=True
    )
    thread.start()
    server.url = f"http://127.0.0.1:{http_server.server_address[1]}/v1"
    yield server
    http_server.shutdown()
    thread.join()
