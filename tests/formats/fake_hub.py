# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face hub on this machine: what an upload needs of one."""

import base64
import contextlib
import http.server
import json
import threading


@contextlib.contextmanager
def serve(token="secret"):
  """Yields (endpoint, repos): repos[name] = {file: bytes}."""
  repos: dict[str, dict[str, bytes]] = {}

  class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
      pass

    def _answer(self, status, value=None, **headers):
      body = b"" if value is None else json.dumps(value).encode()
      self.send_response(status)
      for name, text in headers.items():
        self.send_header(name.replace("_", "-"), text)
      self.send_header("Content-Length", str(len(body)))
      self.end_headers()
      if self.command != "HEAD":
        self.wfile.write(body)

    def do_HEAD(self):
      repo, _, file = self.path[1:].partition("/resolve/main/")
      if file in repos.get(repo, {}):
        self._answer(200, ETag='"1"', X_Repo_Commit="0" * 40)
      else:
        self._answer(404, X_Error_Code="EntryNotFound")

    def do_GET(self):
      self._answer(404, X_Error_Code="RepoNotFound")

    def do_POST(self):
      body = self.rfile.read(int(self.headers["Content-Length"]))
      if self.headers.get("Authorization") != f"Bearer {token}":
        self._answer(401, {"error": "Invalid credentials"})
      elif self.path == "/api/validate-yaml":  # of a README.md
        self._answer(200, {"errors": [], "warnings": []})
      elif self.path == "/api/repos/create":
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        made = name not in repos
        repos.setdefault(name, {})
        self._answer(200 if made else 409, {"url": f"{endpoint}/{name}"})
      elif "/preupload/" in self.path:
        files = json.loads(body)["files"]
        kept = {"uploadMode": "regular", "shouldIgnore": False}
        self._answer(
          200, {"files": [{"path": f["path"], **kept} for f in files]}
        )
      else:
        repo = self.path.removeprefix("/api/models/").split("/commit/")[0]
        for line in body.decode().splitlines():
          entry = json.loads(line)
          if entry["key"] == "file":
            content = base64.b64decode(entry["value"]["content"])
            repos[repo][entry["value"]["path"]] = content
        self._answer(
          200, {"commitUrl": f"{endpoint}/{repo}/commit/1", "commitOid": "1"}
        )

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  endpoint = f"http://127.0.0.1:{server.server_port}"
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield endpoint, repos
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
