# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A bucket of Google Cloud Storage in memory, for TensorStore and gcsfs.

As much of the JSON API as they use: objects with generations, conditional
writes, listings with a delimiter, ranges.
"""

import contextlib
import http.server
import json
import re
import threading
import urllib.parse


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True

  def __init__(self):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.objects: dict[str, tuple[int, bytes]] = {}
    self.begun: dict[str, bytes] = {}  # uploads of which more will come
    self.generation = 1000
    self.turn = threading.Lock()

  def handle_error(self, request, client_address):
    """A client that ends does not wait for its last replies."""


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  server: _Server

  def log_message(self, format, *args):
    del format, args

  @property
  def objects(self):
    return self.server.objects  # name -> (generation, bytes)

  def _parse(self):
    path, _, query = self.path.partition("?")
    self.query = {k: v[0] for k, v in urllib.parse.parse_qs(query).items()}
    found = re.fullmatch(
      r"/(?:upload/|download/)?storage/v1/b/[^/]+(?:/o(?:/([^/]+))?)?(/.*)?",
      path,
    )
    name, rest = (None, None) if found is None else found.groups()
    return path, name and urllib.parse.unquote(name), rest

  def _body(self):
    if self.headers.get("Transfer-Encoding") != "chunked":
      return self.rfile.read(int(self.headers.get("Content-Length") or 0))
    data = b""
    while size := int(self.rfile.readline(), 16):
      data += self.rfile.read(size)
      self.rfile.readline()
    self.rfile.readline()
    return data

  def _reply(self, code, body=b"", headers=()):
    if not isinstance(body, bytes):
      body = json.dumps(body).encode()
    self.send_response(code)
    for key, value in headers:
      self.send_header(key, value)
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def _about(self, name):
    generation, data = self.objects[name]
    return {
      "kind": "storage#object",
      "bucket": "bucket",
      "name": name,
      "size": str(len(data)),
      "generation": str(generation),
      "metageneration": "1",
      "updated": "2026-01-01T00:00:00.000Z",
      "timeCreated": "2026-01-01T00:00:00.000Z",
    }

  def _refused(self, name):
    """Whether a condition on the object's generation does not hold."""
    wanted = self.query.get("ifGenerationMatch")
    return wanted and int(wanted) != self.objects.get(name, (0, b""))[0]

  def do_GET(self):
    path, name, _ = self._parse()
    if name is None:
      if path.endswith("/o"):
        return self._reply(200, self._listing())
      return self._reply(200, {"kind": "storage#bucket", "name": "bucket"})
    if name not in self.objects:
      return self._reply(404, {"error": {"code": 404, "message": "Not Found"}})
    if self.query.get("alt") != "media":
      return self._reply(200, self._about(name))
    generation, data = self.objects[name]
    if self.query.get("ifGenerationNotMatch") == str(generation):
      return self._reply(304)
    headers = [("x-goog-generation", str(generation))]
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
    if not asked:
      return self._reply(200, data, headers)
    first, last = int(asked[1]), int(asked[2] or len(data) - 1)
    part = data[first : last + 1]
    end = first + len(part) - 1
    headers.append(("Content-Range", f"bytes {first}-{end}/{len(data)}"))
    return self._reply(206, part, headers)

  def _listing(self):
    prefix = self.query.get("prefix", "")
    delimiter = self.query.get("delimiter")
    start, end = self.query.get("startOffset"), self.query.get("endOffset")
    items, prefixes = [], set()
    for name in sorted(self.objects):
      if not name.startswith(prefix) or (start and name < start):
        continue
      if end and name >= end:
        continue
      head, found, _ = name[len(prefix) :].partition(delimiter or "\0")
      if found:
        prefixes.add(prefix + head + found)
      else:
        items.append(self._about(name))
    return {"items": items, "prefixes": sorted(prefixes)}

  def do_POST(self):
    path, name, rest = self._parse()
    body = self._body()
    if rest:  # NAME/rewriteTo/b/BUCKET/o/NEW or NAME/moveTo/o/NEW
      new = urllib.parse.unquote(rest.rpartition("/o/")[2])
      self._put(new, self.objects[name][1])
      if rest.startswith("/moveTo"):
        del self.objects[name]
        return self._reply(200, self._about(new))
      return self._reply(200, {"done": True, "resource": self._about(new)})
    if path.startswith("/resume/"):
      return self._resume(urllib.parse.unquote(path[8:]), body)
    if not path.startswith("/upload/"):
      return self._reply(501, {"error": {"code": 501, "message": path}})
    name = self.query.get("name")
    if self.query["uploadType"] == "resumable":
      place = f"http://{self.headers['Host']}/resume/{urllib.parse.quote(name)}"
      return self._reply(200, headers=[("Location", place)])
    if self.query["uploadType"] == "multipart":
      # gcsfs separates the parts by this.
      _, head, content, _ = re.split(rb"\n?--==0==(?:--)?", body)
      name = json.loads(head.partition(b"\n\n")[2])["name"]
      body = content.partition(b"\n\n")[2]
    if self._refused(name):
      return self._reply(412, {"error": {"code": 412, "message": "changed"}})
    self._put(name, body)
    return self._reply(200, self._about(name))

  def _resume(self, name, body):
    begun = self.server.begun.pop(name, b"") + body
    if self.headers["Content-Range"].endswith("/*"):  # more will come
      self.server.begun[name] = begun
      return self._reply(308, headers=[("Range", f"bytes=0-{len(begun) - 1}")])
    self._put(name, begun)
    return self._reply(200, self._about(name))

  def do_DELETE(self):
    _, name, _ = self._parse()
    if name not in self.objects:
      return self._reply(404, {"error": {"code": 404, "message": "Not Found"}})
    if self._refused(name):
      return self._reply(412, {"error": {"code": 412, "message": "changed"}})
    del self.objects[name]
    return self._reply(204)

  def _put(self, name, data):
    with self.server.turn:
      self.server.generation += 1
      self.objects[name] = self.server.generation, data


@contextlib.contextmanager
def serve():
  """Yields (environment for clients, the objects by name)."""
  server = _Server()
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  url = f"http://127.0.0.1:{server.server_port}"
  try:
    yield (
      {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
      },
      server.objects,
    )
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
