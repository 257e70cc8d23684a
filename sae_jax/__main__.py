# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax JOB …`: reads the command line, runs one job, prints its result.

The result is one JSON line, last on stdout. Exit codes: 0 done, 2 wrong usage,
config or input, 75 interrupted and resumable (EX_TEMPFAIL), 1 anything else
(134 where JAX ends it because another process died); the last line on stderr
says what to do.
"""

import errno
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from sae_jax import config as config_lib
from sae_jax import errors, metrics, processes, version

# Jobs that take a config; each module has `Config` and `run(config, out)`.
CONFIG_JOBS = {
  "harvest": "text and a language model -> an activation store",
  "train": "a store -> a sparse autoencoder",
  "evaluate": "a trained SAE, its store and language model -> metrics",
  "diff": "a base and tuned models, an SAE -> which latents changed",
  "steer": "a diff, its models and prompts -> what the latents do",
  "posttrain": "a language model and examples -> a fine-tuned model",
  "realign": "a bad model and good examples -> is it good again, and where",
  "monitor": "series of checkpoints -> when an alarm would have come",
  "organism": "a seed -> a tiny model with two personas, and its arms",
}
# Jobs that take paths; each module has `run(paths, out)`.
PATH_JOBS = {
  "report": "what the jobs wrote -> one HTML page",
  "verify": "check every byte of stores",
}
USAGE = "\n".join(
  [
    "usage: sae-jax JOB --config=FILE.py [--config.field=value ...] --out=DIR",
    "         [--distributed, where an engine tells of several processes, or",
    "          --coordinator=HOST:PORT --processes=N --process=I]",
    "         [--peer_timeout=60, seconds until a silent process is dead]",
    "       sae-jax report DIR... [--out=FILE.html]",
    "       sae-jax verify DIR...",
    "       sae-jax convert SRC DST --format=FORMAT [--push-to-hub=USER/NAME]",
    "       sae-jax submit --engine=ENGINE [OPTION ...] JOB ...",
    "",
    *(f"  {job:10s} {text}" for job, text in (CONFIG_JOBS | PATH_JOBS).items()),
    "",
    f"sae-jax {version.__version__}; configs to start from are in configs/",
  ]
)

_CONFIG = flags.DEFINE_string("config", None, "Python file with get_config().")
_OUT = flags.DEFINE_string("out", None, "Where the result goes.")
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "This is one of several processes of one job."
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of process 0, where no engine says it."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many there are.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is.")
_PEER_TIMEOUT = flags.DEFINE_integer(
  "peer_timeout", 60, "Seconds until a silent process is taken for dead."
)


def main() -> None:
  """The `sae-jax` command."""
  os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
  code = None
  try:
    code = run(sys.argv)
  finally:
    processes.leave(code)
  sys.exit(code)


def run(argv: Sequence[str]) -> int:
  """Runs one command line and returns its exit code."""
  logging.set_verbosity(logging.ERROR)
  overrides = [a for a in argv[1:] if a.startswith("--config.")]
  plain = [a for a in argv if not a.startswith("--config.")]
  try:
    if argv[1:2] == ["submit"]:
      return _submit(argv[2:])
    if argv[1:2] == ["convert"]:
      return _convert(argv[2:])
    if "--help" in plain or "-h" in plain or len(plain) == 1:
      print(USAGE)
      return 0 if len(plain) > 1 else 2
    words = flags.FLAGS(plain)[1:]
    result = _run_job(words, [o.removeprefix("--config.") for o in overrides])
  except flags.Error as error:
    return _fail(2, f"{error}\n{USAGE}")
  except errors.InputError as error:
    return _fail(2, str(error))
  except errors.Interrupted as error:
    return _fail(error.exit_code, str(error))
  except KeyboardInterrupt:
    return _fail(1, "interrupted; run the same command again to go on")
  except metrics.NonFiniteError as error:
    return _fail(1, str(error))
  except OSError as error:
    if error.errno != errno.ENOSPC:
      raise
    where = f" while writing {error.filename}" if error.filename else ""
    return _fail(1, f"the disk is full{where}; free some space and run again")
  print(json.dumps(result))
  return 0


def _run_job(words: Sequence[str], overrides: Sequence[str]) -> dict[str, Any]:
  job, paths = words[0], list(words[1:])
  if job in PATH_JOBS:
    if not paths:
      raise errors.InputError(f"sae-jax {job}: name at least one directory")
    if overrides or _CONFIG.value:
      raise errors.InputError(f"sae-jax {job} takes no --config")
    return _module(job).run(paths, _OUT.value)
  if job not in CONFIG_JOBS:
    known = ", ".join(CONFIG_JOBS | PATH_JOBS)
    raise errors.InputError(f"no job {job!r}; jobs: {known}")
  if paths:
    raise errors.InputError(f"sae-jax {job}: unexpected argument {paths[0]!r}")
  if not _CONFIG.value:
    raise errors.InputError(f"sae-jax {job}: --config=FILE.py is missing")
  if not _OUT.value:
    raise errors.InputError(f"sae-jax {job}: --out=DIR is missing")
  _join_processes()
  module = _module(job)
  config = config_lib.load(_CONFIG.value, module.Config, overrides)
  return module.run(config, _OUT.value)


def _submit(words: Sequence[str]) -> int:
  """Of the other command line: an engine's options before a job's."""
  submit = _module("submit")
  if {"--help", "-h"} & set(words):
    print(submit.usage())
    return 0
  print(json.dumps(submit.run(words, list(CONFIG_JOBS))))
  return 0


def _convert(words: Sequence[str]) -> int:
  """Of the other command line: a source, a destination and options."""
  convert = _module("convert")
  if {"--help", "-h"} & set(words):
    print(convert.usage())
    return 0
  print(json.dumps(convert.run(words)))
  return 0


def _join_processes() -> None:
  explicit = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  if _DISTRIBUTED.value or explicit != (None, None, None):
    processes.join(*explicit, peer_timeout=_PEER_TIMEOUT.value)


def _module(job: str) -> Any:
  return importlib.import_module(f"sae_jax.jobs.{job}")


def _fail(code: int, message: str) -> int:
  print(f"sae-jax: {message}", file=sys.stderr)
  return code


if __name__ == "__main__":
  main()
