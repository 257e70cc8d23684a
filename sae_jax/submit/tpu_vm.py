# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Cloud TPU VMs: `tpu_vm.sh`, which drives gcloud until the job is done.

It stays here, in the background: a slice that is preempted has to be asked for
anew. Commands: https://cloud.google.com/sdk/gcloud/reference/compute/tpus
"""

import dataclasses
import pathlib
import shlex

from sae_jax.submit import plan as plan_lib
from sae_jax.submit import request as request_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(request_lib.Options):
  """The options of `launch/tpu_vm.sh`."""

  zone: str | None = None  # needed
  accelerator: str | None = None  # needed: v6e-16, v5litepod-64, v5p-128, ...
  project: str | None = None  # None: the one gcloud is set to
  runtime: str | None = (
    None  # TPU software; None: what the accelerator asks for
  )
  slices: int = 1
  spot: bool = False
  setup: str | None = None  # runs on every host first: mount what --out lies on
  source: str | None = None  # a checkout to install; None: this one
  keep: bool = False  # leave the slice, and its bill, when the job has ended


def several_hosts(accelerator: str) -> bool:
  """Whether a TPU type is of more than one host: v6e-8 is not, v6e-16 is.

  It ends with chips (v5litepod, v6e) or with cores, two a chip (v4, v5p).
  """
  count = accelerator.rpartition("-")[2]
  return count.isdecimal() and int(count) > 8


def plan(request: request_lib.Request, options: Options) -> plan_lib.Plan:
  """The log lies in the current directory: NAME.log.

  Raises:
    errors.InputError: an option is missing, --out is of one host, or there is
      no checkout to install on the hosts.
  """
  request_lib.needed("tpu-vm", options, "zone", "accelerator")
  request_lib.counted(options, "slices")
  request_lib.check_out(
    request.out,
    "give a directory that --setup=COMMAND mounts on all of them, such as a"
    " Filestore share",
  )
  source = plan_lib.checkout(options.source)
  name = request.name(options.name)
  given = {
    "name": name,
    "zone": options.zone,
    "accelerator": options.accelerator,
    "project": options.project,
    "runtime": options.runtime,
    "slices": options.slices,
    "setup": options.setup,
    "source": source,
  }
  words = [
    *(f"--{k}={v}" for k, v in given.items() if v is not None),
    *(["--spot"] if options.spot else []),
    *(["--keep"] if options.keep else []),
    *request.words(),
  ]
  script = str(plan_lib.TEMPLATES / "tpu_vm.sh")
  place = [f"--zone={options.zone}"]
  if options.project is not None:
    place.append(f"--project={options.project}")
  delete = ["gcloud", "compute", "tpus", "queued-resources", "delete", name]
  log = pathlib.Path(f"{name}.log").absolute()
  return plan_lib.Plan(
    name=name,
    command=("bash", script, *words),
    environment={"RESTARTS": str(options.restarts)},
    preview=("bash", script, "--dry_run", *words),
    hosts=2
    if options.slices > 1 or several_hosts(str(options.accelerator))
    else 1,
    needs="gcloud",
    install="install it from https://cloud.google.com/sdk/docs/install",
    watch=shlex.join(["tail", "-f", str(log)]),
    cancel=f"kill {plan_lib.ID}; "
    + shlex.join([*delete, *place, "--force", "--quiet"]),
    log=log,
    named=False,
  )
