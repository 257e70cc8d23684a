# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""This host, all its devices: a process that outlives the terminal."""

import dataclasses
import pathlib
import shlex

from sae_jax import errors
from sae_jax.submit import plan as plan_lib
from sae_jax.submit import request as request_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(request_lib.Options):
  """`launch/local.sh`, in the background."""


def plan(request: request_lib.Request, options: Options) -> plan_lib.Plan:
  """The log lies beside the output.

  Raises:
    errors.InputError: --out is no local directory.
  """
  if "://" in request.out:
    raise errors.InputError(
      f"--out={request.out}: give a directory of this host, for its log too"
    )
  out = pathlib.Path(request.out).expanduser().absolute()
  request = dataclasses.replace(request, out=str(out))
  log = out.with_name(out.name + ".log")
  return plan_lib.Plan(
    name=request.name(options.name),
    command=("bash", str(plan_lib.TEMPLATES / "local.sh"), *request.words()),
    environment={
      **plan_lib.virtual_environment(),
      "RESTARTS": str(options.restarts),
    },
    needs="bash",
    install="install it",
    watch=shlex.join(["tail", "-f", str(log)]),
    cancel=f"kill {plan_lib.ID}",
    log=log,
    directory=log.parent,
    named=False,
  )
