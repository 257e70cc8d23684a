# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Processes of `sae-jax` that need not import what they run.

Imports take longer than most runs of tests. A server has them done and forks:
what it makes are processes like any other, to be signalled, killed and started
again. It touches no device and has no threads of its own.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import warnings
from typing import Any

PATH = pathlib.Path(__file__)


class Forge:
  """Starts processes; the pipes of their outputs are in `place`."""

  def __init__(self, place: pathlib.Path):
    self._place, self._count = place, 0
    # What JAX reads of its environment is set in each process.
    environment = {
      name: value
      for name, value in os.environ.items()
      if not name.startswith("JAX_")
    }
    self._server = subprocess.Popen(
      [sys.executable, str(PATH)],
      env=environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def start(
    self, *argv: Any, code: str = "", env: dict[str, str] | None = None
  ) -> "Process":
    """Starts `sae-jax ARGV`, or other code with these arguments.

    Args:
      code: a program that is run instead of the command.
      env: None: this process's environment, as it is now.
    """
    self._count += 1
    outputs = [self._place / f"{self._count}.{name}" for name in ("out", "err")]
    for path in outputs:
      os.mkfifo(path)
    request = {
      "argv": ["sae-jax", *map(str, argv)],
      "code": code,
      "env": dict(os.environ) if env is None else env,
      "outputs": [str(path) for path in outputs],
    }
    readers = [Reader(path) for path in outputs]
    return Process(self._ask, self._ask(request), *readers)

  def close(self) -> None:
    self._server.stdin.close()
    self._server.wait()
    self._server.stdout.close()

  def _ask(self, request: Any) -> Any:
    print(json.dumps(request), file=self._server.stdin, flush=True)
    return json.loads(self._server.stdout.readline())


class Reader(threading.Thread):
  """Reads a pipe until all who write to it have ended."""

  def __init__(self, path: pathlib.Path):
    super().__init__(daemon=True)
    self._path, self.text = path, ""
    self.start()

  def run(self) -> None:
    with self._path.open() as pipe:
      for line in pipe:
        self.text += line


class Process:
  """As `subprocess.Popen` with pipes of text, which are read all the time."""

  def __init__(self, ask, pid: int, out: Reader, err: Reader):
    self._ask, self.pid, self._out, self._err = ask, pid, out, err
    self.returncode: int | None = None

  def poll(self) -> int | None:
    """The exit code; None while it runs."""
    if self.returncode is None:
      self.returncode = self._ask(self.pid)
    return self.returncode

  @property
  def said(self) -> str:
    """What it wrote to stderr so far; all once it has ended."""
    if self.poll() is not None:
      self._err.join(10)
    return self._err.text

  def wait(self, timeout: float = 300) -> int:
    deadline = time.monotonic() + timeout
    while self.poll() is None:
      assert time.monotonic() < deadline, self.said
      time.sleep(0.005)
    return self.returncode

  def communicate(self, timeout: float = 300) -> tuple[str, str]:
    """Waits for its end; returns stdout and stderr."""
    self.wait(timeout)
    for reader in (self._out, self._err):
      reader.join(timeout)
    return self._out.text, self._err.text

  def send_signal(self, number: int) -> None:
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self) -> None:
    self.send_signal(signal.SIGKILL)
    self.wait()


def serve() -> None:
  """Reads requests; in a process that was asked for, returns at its end."""
  for line in sys.stdin:
    request = json.loads(line)
    if isinstance(request, int):
      pid, status = os.waitpid(request, os.WNOHANG)
      reply = os.waitstatus_to_exitcode(status) if pid else None
    else:
      with warnings.catch_warnings(action="ignore"):
        reply = os.fork()
      if not reply:
        run(**request)
        return
    print(json.dumps(reply), flush=True)


def run(argv, code, env, outputs):
  for number, path in enumerate((os.devnull, *outputs)):
    opened = os.open(path, os.O_WRONLY if number else os.O_RDONLY)
    os.dup2(opened, number)
    os.close(opened)
  os.environ.clear()
  os.environ.update(env)
  options = jax.config.values
  for name, value in env.items():
    if (option := name.lower()) in options:
      jax.config.update(option, parsed(value, options[option]))
  sys.argv = argv
  if code:
    exec(compile(code, "code", "exec"), {"__name__": "__main__"})
  else:
    __main__.main()


def parsed(value, default):
  if isinstance(default, bool):
    return value.lower() in ("1", "true", "yes", "on")
  return type(default)(value) if isinstance(default, int | float) else value


if __name__ == "__main__":
  import jax

  from sae_jax import __main__
  from sae_jax.jobs import harvest, train

  assert harvest and train  # most processes run one of them
  serve()
