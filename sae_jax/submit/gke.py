# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Kubernetes: a JobSet, one pod per TPU host or GPU node.

Labels and resources of Google Kubernetes Engine:
https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus
"""

import dataclasses
import math
import pathlib
import re
import shlex
from typing import Any

from sae_jax import errors
from sae_jax.submit import plan as plan_lib
from sae_jax.submit import request as request_lib

_CONFIG = "/etc/sae-jax/config.py"
# The API server takes 256 KiB of annotations.
_LONGEST_CONFIG = 200_000
_QUEUE = "kueue.x-k8s.io/queue-name"
_PORT = 8476


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(request_lib.Options):
  """What is asked of the cluster."""

  image: str | None = None  # needed; built from launch/Dockerfile
  accelerator: str | None = (
    None  # tpu-v6e-slice, nvidia-h100-80gb; None: any GPU
  )
  topology: str | None = None  # of a TPU slice: 4x4, 8x16, 4x4x8, ...
  chips: int | None = None  # of a TPU host; None: what is usual
  slices: int = 1  # TPU slices of this topology
  nodes: int = 1  # GPU nodes
  gpus: int = 8  # of every node
  claim: str = "sae-jax"  # a PersistentVolumeClaim that all pods can write
  mount: str = "/shared"  # where the pods see it; --out lies there
  queue: str | None = None  # a LocalQueue of Kueue
  spot: bool = False
  restarts: int = 10  # also where a node is lost without notice
  namespace: str | None = None  # None: the one kubectl is set to


def plan(request: request_lib.Request, options: Options) -> plan_lib.Plan:
  """The JobSet carries the config file.

  Raises:
    errors.InputError: an option is missing or does not fit the others, or
      --out is not on the volume.
  """
  request_lib.needed("gke", options, "image")
  request_lib.counted(options, "chips", "slices", "nodes", "gpus")
  volume = f"give a directory in {options.mount}, where the pods see the claim"
  request_lib.check_out(request.out, volume)
  if not pathlib.PurePosixPath(request.out).is_relative_to(options.mount):
    raise errors.InputError(
      f"--out={request.out} is lost with the pod; {volume}, or --mount=DIR"
    )
  name = request.name(options.name)
  manifest = _jobset(request, options, name)
  hosts = manifest["spec"]["replicatedJobs"][0]["template"]["spec"][
    "completions"
  ]
  space = (
    [] if options.namespace is None else [f"--namespace={options.namespace}"]
  )
  kubectl = shlex.join(["kubectl", *space])
  return plan_lib.Plan(
    name=name,
    document=plan_lib.to_yaml(manifest),
    command=("kubectl", *space, "create", f"--filename={plan_lib.DOCUMENT}"),
    hosts=hosts * options.slices,
    needs="kubectl",
    install=(
      "install it (https://kubernetes.io/docs/tasks/tools/) and run 'gcloud"
      " container clusters get-credentials CLUSTER'"
    ),
    watch=f"{kubectl} get jobset {name}; {kubectl} logs --follow --prefix"
    f" --selector=jobset.sigs.k8s.io/jobset-name={name}",
    cancel=f"{kubectl} delete jobset {name}",
    resume=f"{kubectl} delete jobset {name}, then the same command",
  )


def _jobset(
  request: request_lib.Request, options: Options, name: str
) -> dict[str, Any]:
  tpu = options.topology is not None
  manifest = plan_lib.manifest("gke_tpu.yaml" if tpu else "gke_gpu.yaml")
  manifest["metadata"]["name"] = name
  labels = manifest["metadata"].pop("labels")
  if options.queue is not None:
    manifest["metadata"]["labels"] = labels | {_QUEUE: options.queue}
  manifest["spec"]["failurePolicy"]["maxRestarts"] = options.restarts
  replicated = manifest["spec"]["replicatedJobs"][0]
  job = replicated["template"]["spec"]
  pod = job["template"]["spec"]
  container = pod["containers"][0]
  job["template"]["metadata"]["annotations"]["sae-jax/config"] = _config(
    request
  )
  container["image"] = options.image
  if tpu:
    hosts = _fill_tpu(replicated, pod, container, options)
    together = ["--distributed"] if hosts * options.slices > 1 else []
  else:
    hosts = _fill_gpu(pod, container, options)
    together = container["args"][-3:] if hosts > 1 else []
    together = [
      f"--processes={hosts}" if w.startswith("--processes=") else w
      for w in together
    ]
  job["completions"] = job["parallelism"] = hosts
  # Kubernetes fills in $(NAME); a job's own words are meant as they are.
  words = [w.replace("$(", "$$(") for w in request.words(_CONFIG)]
  container["args"] = [*words, *together]
  container["volumeMounts"][1]["mountPath"] = options.mount
  pod["volumes"][1]["persistentVolumeClaim"]["claimName"] = options.claim
  if options.spot:
    pod.setdefault("nodeSelector", {})["cloud.google.com/gke-spot"] = "true"
    pod["tolerations"] = [
      {
        "key": "cloud.google.com/gke-spot",
        "operator": "Equal",
        "value": "true",
        "effect": "NoSchedule",
      }
    ]
  return manifest


def _config(request: request_lib.Request) -> str:
  text = request.config.read_text()
  if len(text.encode()) > _LONGEST_CONFIG:
    raise errors.InputError(
      f"--config={request.config} has more than {_LONGEST_CONFIG} bytes, which"
      " a manifest cannot carry; put what is large into the image"
    )
  return text


def _fill_tpu(
  replicated: dict[str, Any],
  pod: dict[str, Any],
  container: dict[str, Any],
  options: Options,
) -> int:
  """Returns how many hosts a slice has."""
  if not (options.accelerator or "").startswith("tpu"):
    raise errors.InputError(
      f"--topology={options.topology} is of a TPU slice; give its"
      " --accelerator too: tpu-v6e-slice, tpu-v5-lite-podslice,"
      " tpu-v5p-slice or tpu-v4-podslice"
    )
  chips, hosts = slice_hosts(str(options.topology), options.chips)
  pod["nodeSelector"] = {
    "cloud.google.com/gke-tpu-accelerator": options.accelerator,
    "cloud.google.com/gke-tpu-topology": options.topology,
  }
  container["resources"]["limits"] = {"google.com/tpu": chips}
  replicated["replicas"] = options.slices
  if options.slices > 1:
    # Between slices, the hosts' network without a detour.
    pod["hostNetwork"] = True
    pod["dnsPolicy"] = "ClusterFirstWithHostNet"
  return hosts


def slice_hosts(topology: str, chips: int | None) -> tuple[int, int]:
  """(chips of a host, hosts) of a slice.

  Hosts have four chips; a slice of one chip, and 2x4 of v5e and v6e, lie on
  one host (`chips` says otherwise).

  Raises:
    errors.InputError: no topology, or its chips do not fill hosts.
  """
  if not re.fullmatch(r"\d+x\d+(x\d+)?", topology):
    raise errors.InputError(
      f"--topology={topology}: write it as the node pool does, as 4x4 or 4x4x8"
    )
  total = math.prod(int(side) for side in topology.split("x"))
  if chips is None:
    chips = total if total < 4 or topology == "2x4" else 4
  if total == 0 or total % chips:
    raise errors.InputError(
      f"--topology={topology} has {total} chips, which hosts of {chips} cannot"
      " share; give --chips=N of a host"
    )
  return chips, total // chips


def _fill_gpu(
  pod: dict[str, Any], container: dict[str, Any], options: Options
) -> int:
  if (options.accelerator or "").startswith("tpu"):
    raise errors.InputError(
      f"--accelerator={options.accelerator}: give the slice's --topology=4x4"
      " too"
    )
  selector = pod.pop("nodeSelector")
  if options.accelerator is not None:
    pod["nodeSelector"] = {key: options.accelerator for key in selector}
  container["resources"]["limits"] = {"nvidia.com/gpu": options.gpus}
  return options.nodes
