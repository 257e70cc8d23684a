# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""SkyPilot: a managed job on spot machines of any cloud, found anew when lost.

Fields: https://docs.skypilot.co/en/latest/reference/yaml-spec.html
"""

import dataclasses
import pathlib
import shlex

from sae_jax import errors
from sae_jax.submit import plan as plan_lib
from sae_jax.submit import request as request_lib
from sae_jax.submit import tpu_vm

# Where the template mounts the bucket, and puts the config file.
_MOUNT = "/checkpoints"
_CONFIG = "~/sae_jax_config.py"
_STORES = {"gs": "gcs", "s3": "s3", "r2": "r2"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(request_lib.Options):
  """What SkyPilot shall find."""

  accelerators: str | None = (
    None  # needed: H100:8, A100-80GB:4, tpu-v6e-16, ...
  )
  infra: str | None = None  # gcp, aws/us-east-1, k8s, ...; None: the cheapest
  nodes: int = 1
  spot: bool = True
  bucket: str | None = None  # gs://... or s3://...: seen as /checkpoints
  volume: str | None = (
    None  # or a SkyPilot volume, which several nodes can share
  )
  source: str | None = None  # a checkout to install; None: this one


def plan(request: request_lib.Request, options: Options) -> plan_lib.Plan:
  """The checkout and the config file are copied to the machines.

  Raises:
    errors.InputError: an option is missing or does not fit the others, --out
      is not on what outlives a machine, or there is no checkout to install.
  """
  request_lib.needed("skypilot", options, "accelerators")
  request_lib.counted(options, "nodes")
  _check_out(request, options)
  accelerators = str(options.accelerators)
  name = request.name(options.name)
  task = plan_lib.manifest("skypilot.yaml")
  task["name"] = name
  task["num_nodes"] = options.nodes
  task["workdir"] = str(plan_lib.checkout(options.source))
  resources = task["resources"]
  resources["accelerators"] = accelerators
  resources["use_spot"] = options.spot
  resources["job_recovery"]["max_restarts_on_errors"] = options.restarts
  if options.infra is not None:
    resources["infra"] = options.infra
  task["envs"]["SAE_JAX_FOR"] = (
    "tpu" if accelerators.startswith("tpu-") else "cuda"
  )
  mounts = {_CONFIG: str(request.config)}
  if options.bucket is not None:
    mounts[_MOUNT] = task["file_mounts"][_MOUNT] | {
      "source": options.bucket,
      "store": _store(options.bucket),
    }
  if options.volume is not None:
    task["volumes"] = {_MOUNT: options.volume}
  task["file_mounts"] = mounts
  task["run"] = _run(task["run"], request)
  return plan_lib.Plan(
    name=name,
    document=plan_lib.to_yaml(task),
    command=(
      *("sky", "jobs", "launch", "--yes", "--detach-run"),
      f"--name={name}",
      plan_lib.DOCUMENT,
    ),
    hosts=_hosts(options),
    needs="sky",
    install="pip install 'skypilot[gcp]' (or [aws], ...), then sky check",
    watch=f"sky jobs queue; sky jobs logs --name {name}",
    cancel=f"sky jobs cancel --name {name}",
  )


def _check_out(request: request_lib.Request, options: Options) -> None:
  if options.bucket is not None and options.volume is not None:
    raise errors.InputError(
      "give --bucket or --volume: both are for /checkpoints"
    )
  remedy = (
    f"give a directory in {_MOUNT}, with --bucket=gs://... or --volume=NAME"
    " behind it"
  )
  request_lib.check_out(request.out, remedy)
  out = pathlib.PurePosixPath(request.out)
  behind = options.bucket or options.volume
  if behind is None or not out.is_relative_to(_MOUNT):
    raise errors.InputError(f"--out={out} is lost with the machine; {remedy}")
  # Every host has a cache of its own in front of a bucket.
  direct = "://" in request.checkpoints
  if _hosts(options) > 1 and options.bucket is not None and not direct:
    raise errors.InputError(
      f"--bucket={options.bucket}: a host does not at once see there what"
      " another one wrote; give --volume=NAME, or for train"
      f" --config.checkpoints={options.bucket.rstrip('/')}/NAME too"
    )


def _hosts(options: Options) -> int:
  if tpu_vm.several_hosts(str(options.accelerators)):
    return 2 * options.nodes
  return options.nodes


def _store(bucket: str) -> str:
  scheme = bucket.partition("://")[0]
  if scheme not in _STORES:
    raise errors.InputError(
      f"--bucket={bucket}: write it as {'://..., '.join(_STORES)}://..."
    )
  return _STORES[scheme]


def _run(script: str, request: request_lib.Request) -> str:
  """The template's script with the job's line as its last."""
  lines = script.rstrip("\n").split("\n")
  before, last = lines[:-2], lines[-1]  # between them, "# EDIT"
  if not last.startswith("exec sae-jax "):
    raise ValueError(f"skypilot.yaml ends with {last!r}, not with the job")
  job, config, *words = request.words(_CONFIG)
  config = config.replace("~/", "$HOME/")
  line = f'exec sae-jax {job} "{config}" {shlex.join(words)} "${{together[@]}}"'
  return "\n".join([*before, line]) + "\n"
