# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax submit`: a job for an engine, checked here before it waits there."""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

from sae_jax import config as config_lib
from sae_jax import errors, submit

# The other jobs refuse to be one of several processes.
_OF_SEVERAL_HOSTS = ("harvest", "train")


def usage() -> str:
  return submit.usage()


def run(words: Sequence[str], jobs: Sequence[str]) -> dict[str, Any]:
  """Submits the job, or prints what `--dry_run` asks to see.

  Args:
    words: the command line after `submit`.
    jobs: those that take a config.

  Raises:
    errors.InputError: what the job or the engine would refuse later.
  """
  engine, options, request = submit.read(words, submit.ENGINES, jobs)
  module = importlib.import_module(f"sae_jax.jobs.{request.job}")
  config = config_lib.load(
    str(request.config), module.Config, request.overrides
  )
  checkpoints = config_lib.to_dict(config).get("checkpoints", "")
  request = dataclasses.replace(request, checkpoints=checkpoints)
  plan = submit.ENGINES[engine].plan(request, options)
  if plan.hosts > 1 and request.job not in _OF_SEVERAL_HOSTS:
    raise errors.InputError(
      f"sae-jax {request.job} runs on one host, with all its devices; only"
      f" {' and '.join(_OF_SEVERAL_HOSTS)} run on several"
    )
  if options.dry_run:
    print(submit.show(plan))
    return {"engine": engine, **submit.described(plan, None)}
  return {"engine": engine, **submit.described(plan, submit.carry_out(plan))}
