# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The words after `sae-jax submit`: an engine, its options, a job's line."""

import dataclasses
import difflib
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from sae_jax import config as config_lib
from sae_jax import errors

# Directories that each host has for itself.
_OF_ONE_HOST = ("/tmp", "/var/tmp", "/dev/shm", "/run")
# What submit decides by itself from the options.
_SET_BY_SUBMIT = ("distributed", "coordinator", "processes", "process")
# One process's view of its peers, passed on as it is.
_PASSED_ON = ("peer_timeout",)
_SET = "true"  # an option without a value
_LONGEST_NAME = 40  # Kubernetes adds to it, and allows 63 letters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """What `sae-jax` shall run, in the same words on every engine."""

  job: str
  config: pathlib.Path  # absolute
  overrides: tuple[str, ...]  # a.b=value
  out: str  # as it is meant on the hosts
  checkpoints: str = ""  # where the config puts them, if elsewhere
  flags: tuple[str, ...] = ()

  def words(self, config: str | None = None) -> list[str]:
    """The arguments of `sae-jax`, with the config file at `config`."""
    return [
      self.job,
      f"--config={config or self.config}",
      *(f"--config.{override}" for override in self.overrides),
      f"--out={self.out}",
      *self.flags,
    ]

  def name(self, given: str | None) -> str:
    """A name that all engines take: the one given, or by job and output.

    Raises:
      errors.InputError: the name given is not one.
    """
    if given is None:
      text = f"{self.job}-{self.out.rstrip('/').rpartition('/')[2]}".lower()
      text = re.sub(r"[^a-z0-9]+", "-", text)[:_LONGEST_NAME].strip("-")
      return text
    if len(given) > _LONGEST_NAME or not re.fullmatch(
      r"[a-z]([a-z0-9-]*[a-z0-9])?", given
    ):
      raise errors.InputError(
        f"--name={given}: give at most {_LONGEST_NAME} small letters, digits"
        " and dashes, a letter first"
      )
    return given


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """What every engine takes."""

  name: str | None = None  # of the job, there; by default JOB-DIR
  dry_run: bool = False  # show what would be submitted and submit nothing
  restarts: int = 3  # after crashes, from the last checkpoint


def read(
  words: Sequence[str], engines: dict[str, Any], jobs: Sequence[str]
) -> tuple[str, Options, Request]:
  """Sorts the words into engine, options and job.

  Args:
    words: the command line after `submit`.
    engines: name -> a module with `Options`.
    jobs: the jobs that can be submitted.

  Raises:
    errors.InputError: a word that none of them knows, or one that is missing.
  """
  values: dict[str, str] = {}
  overrides, plain = [], []
  for word in words:
    if word.startswith("--config."):
      overrides.append(word.removeprefix("--config."))
    elif word.startswith("-"):
      name, equals, value = word.lstrip("-").partition("=")
      values[name.replace("-", "_")] = value if equals else _SET
    else:
      plain.append(word)
  engine = values.pop("engine", "")
  if engine not in engines:
    raise errors.InputError(
      f"sae-jax submit: --engine={engine}: choose one of {', '.join(engines)}"
    )
  request = _request(plain, values, overrides, jobs)
  return engine, _options(engine, engines[engine].Options, values), request


def _request(
  plain: list[str],
  values: dict[str, str],
  overrides: list[str],
  jobs: Sequence[str],
) -> Request:
  if len(plain) != 1 or plain[0] not in jobs:
    said = " ".join(plain) or "no job"
    raise errors.InputError(
      f"sae-jax submit: {said}: name one job of {', '.join(jobs)}"
    )
  for name in ("config", "out"):
    if values.get(name, _SET) == _SET:
      raise errors.InputError(
        f"sae-jax submit {plain[0]}: --{name}={name.upper()} is missing"
      )
  for name in _SET_BY_SUBMIT:
    if name in values:
      raise errors.InputError(
        f"sae-jax submit: leave out --{name}; it follows from the engine's"
        " options"
      )
  return Request(
    job=plain[0],
    config=pathlib.Path(values.pop("config")).expanduser().absolute(),
    overrides=tuple(overrides),
    out=values.pop("out"),
    flags=tuple(
      f"--{name}={values.pop(name)}" for name in _PASSED_ON if name in values
    ),
  )


def _options(
  engine: str, cls: type[Options], values: dict[str, str]
) -> Options:
  names = [field.name for field in dataclasses.fields(cls)]
  for name in values:
    if name not in names:
      close = difflib.get_close_matches(name, names, n=1)
      hint = f"did you mean --{close[0]}?" if close else f"it takes {names}"
      raise errors.InputError(
        f"sae-jax submit --engine={engine}: no option --{name}; {hint}"
      )
  try:
    return config_lib.override(cls(), [f"{n}={v}" for n, v in values.items()])
  except errors.InputError as error:
    # It is an option here, not a field of the job's config.
    raise errors.InputError(str(error).replace("--config.", "--")) from None


def needed(engine: str, options: Options, *names: str) -> None:
  """Raises errors.InputError for the first of these options that is unset."""
  for name in names:
    if getattr(options, name) is None:
      raise errors.InputError(
        f"sae-jax submit --engine={engine}: --{name}={name.upper()} is missing"
      )


def counted(options: Options, *names: str) -> None:
  """Raises errors.InputError for the first of these that is below 1."""
  for name in names:
    value = getattr(options, name)
    if value is not None and value < 1:
      raise errors.InputError(f"--{name}={value}: give a number >= 1")


def check_out(out: str, remedy: str) -> None:
  """Checks that several hosts mean the same directory by it.

  Raises:
    errors.InputError: no directory, a relative path, or one of one host;
      `remedy` ends the message.
  """
  if "://" in out:
    raise errors.InputError(
      f"--out={out}: jobs write to a directory (the checkpoints of train may"
      f" lie on gs://, see its config field checkpoints); {remedy}"
    )
  if not pathlib.PurePosixPath(out).is_absolute():
    raise errors.InputError(
      f"--out={out}: the hosts do not know the directory you are in; {remedy}"
    )
  check_shared("out", out, remedy)


def check_shared(option: str, path: str, remedy: str) -> None:
  """Raises errors.InputError for a path that each host has for itself."""
  for local in _OF_ONE_HOST:
    if pathlib.PurePosixPath(path).is_relative_to(local):
      raise errors.InputError(
        f"--{option}={path}: every host has a {local} of its own: processes do"
        f" not meet there and a restart finds nothing; {remedy}"
      )
