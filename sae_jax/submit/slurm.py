# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Slurm: `sbatch OPTIONS train.sbatch JOB ...`, one task per node.

The script knows what to do at a time limit, a preemption and a crash. Options:
https://slurm.schedmd.com/sbatch.html
"""

import dataclasses
import pathlib
import shlex

from sae_jax.submit import plan as plan_lib
from sae_jax.submit import request as request_lib

_REMEDY = "give one that all nodes share, such as in your home directory"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(request_lib.Options):
  """What `sbatch` is told; `sbatch` takes any more of its options."""

  nodes: int = 1
  gpus: int | None = None  # of every node; None: the nodes' CPUs
  partition: str | None = None
  account: str | None = None
  time: str | None = None  # the limit, such as 24:00:00
  sbatch: str = ""  # further options, as one word: '--qos=high --exclusive'


def plan(request: request_lib.Request, options: Options) -> plan_lib.Plan:
  """The log lies beside the output: DIR.slurm-JOBID.log.

  Raises:
    errors.InputError: the config or --out is not on a shared disk.
  """
  request_lib.counted(options, "nodes", "gpus")
  out = request.out
  if "://" not in out:
    out = str(pathlib.Path(out).expanduser().absolute())
  request_lib.check_out(out, _REMEDY)
  request_lib.check_shared("config", str(request.config), _REMEDY)
  request = dataclasses.replace(request, out=out)
  name = request.name(options.name)
  log = f"{out}.slurm-%j.log"
  given = {
    "job-name": name,
    "nodes": options.nodes,
    "gpus-per-node": options.gpus,
    "partition": options.partition,
    "account": options.account,
    "time": options.time,
    "output": log,
  }
  return plan_lib.Plan(
    name=name,
    command=(
      "sbatch",
      "--parsable",
      *(f"--{k}={v}" for k, v in given.items() if v is not None),
      *shlex.split(options.sbatch),
      str(plan_lib.TEMPLATES / "train.sbatch"),
      *request.words(),
    ),
    environment={
      **plan_lib.virtual_environment(),
      "RESTARTS": str(options.restarts),
    },
    needs="sbatch",
    install="submit on a login node of the cluster (Debian: slurm-client)",
    watch=f"squeue --jobs=%j; tail -F {shlex.quote(log)}".replace(
      "%j", plan_lib.ID
    ),
    cancel=f"scancel {plan_lib.ID}",
    named=False,
    directory=pathlib.Path(log).parent,
  )
