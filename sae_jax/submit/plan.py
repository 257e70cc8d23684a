# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What an engine is told: a document, a command, and how to see it again."""

import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import yaml

from sae_jax import errors

TEMPLATES = pathlib.Path(__file__).parent / "templates"
# In a command: the path of the plan's document. In `watch` and `cancel`: what
# the engine calls the job.
DOCUMENT, ID = "{document}", "{id}"
# A script that is left to itself and ends sooner did not start anything.
_SOON_S = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """One submission.

  With a `log` the command is left to itself, in the background. An engine that
  does not go by the name (not `named`) goes by what the command prints.
  """

  name: str
  command: tuple[str, ...]
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
  document: str | None = None  # the manifest
  directory: pathlib.Path | None = None  # has to be there, for a log
  log: pathlib.Path | None = None
  needs: str  # a program on the PATH
  install: str  # where it is had from
  hosts: int = 1  # processes of one program, if more than one
  preview: tuple[str, ...] = ()  # prints what the command would do
  named: bool = True
  watch: str
  cancel: str
  resume: str = "the same command"


def show(plan: Plan) -> str:
  """What `carry_out` would submit, to be read."""
  words = [w.replace(DOCUMENT, f"{plan.name}.yaml") for w in plan.command]
  assigned = [f"{k}={shlex.quote(v)}" for k, v in plan.environment.items()]
  line = " ".join([*assigned, shlex.join(words)])
  if plan.log is not None:
    words = [*assigned, "nohup", shlex.join(words)]
    line = f"{' '.join(words)} >>{shlex.quote(str(plan.log))} 2>&1 &"
  if plan.preview:
    line += "\n\n" + subprocess.check_output(plan.preview, text=True).rstrip()
  if plan.document is None:
    return line
  return f"# {plan.name}.yaml\n{plan.document}---\n{line}"


def carry_out(plan: Plan) -> str:
  """Submits it and returns what the engine calls the job.

  Raises:
    errors.InputError: the engine's program is not there, or refuses.
  """
  if shutil.which(plan.needs) is None:
    raise errors.InputError(
      f"sae-jax submit: no {plan.needs} on the PATH; {plan.install}"
    )
  if plan.directory is not None:
    plan.directory.mkdir(parents=True, exist_ok=True)
  environment = {**os.environ, **plan.environment}
  if plan.log is not None:
    return _leave(plan, environment, plan.log)
  with tempfile.TemporaryDirectory(prefix="sae-jax-") as directory:
    document = pathlib.Path(directory) / f"{plan.name}.yaml"
    document.write_text(plan.document or "")
    command = [w.replace(DOCUMENT, str(document)) for w in plan.command]
    done = subprocess.run(
      command, env=environment, stdout=subprocess.PIPE, text=True
    )
  if done.returncode:
    raise errors.InputError(
      f"sae-jax submit: {shlex.join(command)} ended with code"
      f" {done.returncode} (its message is above); to submit a job of this name"
      f" again: {plan.resume}"
    )
  if plan.named:
    sys.stderr.write(done.stdout)
    return plan.name
  # Of several clusters Slurm prints JOBID;CLUSTER.
  return done.stdout.strip().partition(";")[0]


def described(plan: Plan, identifier: str | None) -> dict[str, Any]:
  """The result of `sae-jax submit`; without an identifier, of a dry run."""
  known = identifier or (plan.name if plan.named else "ID")
  found = {
    "name": plan.name,
    "submitted": identifier,
    "watch": plan.watch.replace(ID, known),
    "cancel": plan.cancel.replace(ID, known),
    "resume": plan.resume,
  }
  return found if plan.log is None else {**found, "log": str(plan.log)}


def virtual_environment() -> dict[str, str]:
  """For the scripts: this one, where `sae-jax` is in one."""
  if (pathlib.Path(sys.prefix) / "bin" / "sae-jax").exists():
    return {"VENV": sys.prefix}
  return {}


def checkout(given: str | None) -> pathlib.Path:
  """The directory of sae_jax that other machines shall install.

  Raises:
    errors.InputError: it is none; an installed package is not enough.
  """
  path = pathlib.Path(given or pathlib.Path(__file__).resolve().parents[2])
  path = path.expanduser().absolute()
  if not (path / "pyproject.toml").is_file():
    raise errors.InputError(
      f"--source={path} holds no pyproject.toml; give a checkout of sae_jax, to"
      " be installed on the machines"
    )
  return path


def manifest(name: str) -> Any:
  """The values of a template that is YAML."""
  return yaml.safe_load((TEMPLATES / name).read_text())


def to_yaml(value: Any) -> str:
  """YAML in the order given, texts of several lines as they are."""
  return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1000)


class _Dumper(yaml.SafeDumper):
  pass


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
  style = "|" if "\n" in text else None
  return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _leave(plan: Plan, environment: dict[str, str], log: pathlib.Path) -> str:
  """Starts the command in a session of its own: it outlives this terminal."""
  append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
  pid = os.posix_spawnp(
    plan.command[0],
    plan.command,
    environment,
    file_actions=[
      (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
      (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
      (os.POSIX_SPAWN_DUP2, 1, 2),
    ],
    setsid=True,
  )
  deadline = time.monotonic() + _SOON_S
  while time.monotonic() < deadline:
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended and (code := os.waitstatus_to_exitcode(status)):
      last = log.read_text(errors="replace").splitlines()[-1:]
      raise errors.InputError(
        f"sae-jax submit: it ended at once with code {code}: {' '.join(last)}"
        f" (all of it is in {log})"
      )
    if ended:
      break
    time.sleep(0.02)
  return str(pid)
