# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One of several processes of a job: how it joins, leaves, and hears of deaths.

A process that dies takes the others with it, within `peer_timeout` seconds:
they would wait for it in their next collective for ever.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading

import jax

from sae_jax import errors

# How long a process that failed waits for others that fail alike; then it goes
# and JAX ends them.
_GRACE_SECONDS = 10

_EXPLICIT = (
  ("--coordinator=HOST:PORT", "JAX_COORDINATOR_ADDRESS"),
  ("--processes=N", "JAX_NUM_PROCESSES"),
  ("--process=I", "JAX_PROCESS_ID"),
)
_GPUS = ("jax_cuda_visible_devices", "jax_rocm_visible_devices")

# Outlives this process for an instant to print the last line that it was given.
_SPEAKER = """
trap "" HUP INT TERM
while IFS= read -r line; do words=$line; done
if [ -n "$words" ]; then printf "%s\\n" "$words" >&2; fi
"""
_speaker: subprocess.Popen | None = None


def join(
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  *,
  peer_timeout: int = 60,
) -> None:
  """Joins the other processes of this job; call it before anything else.

  What is not given is taken from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
  JAX_PROCESS_ID, then JAX asks the engine: Cloud TPU, GKE, Slurm, Open MPI or
  Kubernetes. A process that is alone on its host gets all of its GPUs.

  Args:
    coordinator: HOST:PORT of process 0, as the others reach it.
    processes: how many there are.
    process: which of them this is.
    peer_timeout: seconds without a sign of life after which a process counts
      as dead and all others end.

  Raises:
    errors.InputError: nothing describes a job of several processes. Where the
      others cannot be reached JAX ends this one, and the last line says so.
  """
  coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
  if processes is None:
    processes = _number("JAX_NUM_PROCESSES")
  if process is None:
    process = _number("JAX_PROCESS_ID")
  _check(coordinator, processes, process, peer_timeout)
  missing = [
    f"{flag} (or {variable})"
    for (flag, variable), value in zip(
      _EXPLICIT, (coordinator, processes, process), strict=True
    )
    if value is None
  ]
  visible = {name: jax.config.read(name) for name in _GPUS}
  meet = (
    "Start all processes within five minutes, each with its own number; process"
    " 0 needs its port free, the others must reach it at"
    f" {coordinator or 'the address that the engine gives'}"
  )
  _start_speaker()
  _last_words(f"{_who()} could not join. {meet}")
  try:
    jax.distributed.initialize(
      coordinator,
      processes,
      process,
      cluster_detection_method=None if missing else "deactivate",
      heartbeat_timeout_seconds=peer_timeout,
    )
  except (ValueError, RuntimeError, OSError) as error:
    _last_words("")
    said = str(error).strip().splitlines()[0].rstrip(".")
    raise errors.InputError(
      f"--distributed: {said}. {_remedy(missing) if missing else meet}"
    ) from error
  if _alone_on_host() and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
    # JAX has left only GPU number SLURM_LOCALID to this process.
    for name, devices in visible.items():
      jax.config.update(name, devices)
  _last_words(
    f"{_who()} was ended because another one died or was silent for"
    f" {peer_timeout} s, or it was killed itself. Run the same command again,"
    " on all hosts, to go on from what is saved"
  )


def leave(code: int | None) -> None:
  """Takes leave of the others before this process exits.

  Args:
    code: 0 and 75 are exit codes that all processes reach together; others,
      and None (an error that nobody expected), are of a process that failed.
  """
  if not jax.distributed.is_initialized():
    return
  together = code in (0, errors.Interrupted.exit_code)
  if not together:
    sys.stdout.flush()
    sys.stderr.flush()
    late = threading.Timer(
      _GRACE_SECONDS, os._exit, (1 if code is None else code,)
    )
    late.daemon = True
    late.start()
  if code is None:
    _last_words(
      f"{_who()} failed, as said above; if by a lost connection, another one"
      " died first. Once that is mended, run the same command again, on all"
      " hosts, to go on from what is saved"
    )
    return
  if not together:
    _last_words("")
  # The others may have failed meanwhile; this one has done what it could.
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    jax.distributed.shutdown()
  _last_words("")


def _number(name: str) -> int | None:
  text = os.environ.get(name)
  if text is None:
    return None
  if not text.isdecimal():
    raise errors.InputError(f"{name}={text}: give a whole number")
  return int(text)


def _check(
  coordinator: str | None,
  processes: int | None,
  process: int | None,
  peer_timeout: int,
) -> None:
  if coordinator is not None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
      raise errors.InputError(
        f"--coordinator={coordinator}: give HOST:PORT of process 0"
      )
  if processes is not None and processes < 1:
    raise errors.InputError(f"--processes={processes}: give a number >= 1")
  if process is not None and process not in range(processes or process + 1):
    raise errors.InputError(
      f"--process={process}: processes are numbered from 0 to"
      f" {(processes or 1) - 1}"
    )
  if peer_timeout < 1:
    raise errors.InputError(
      f"--peer_timeout={peer_timeout}: give whole seconds >= 1"
    )


def _remedy(missing: list[str]) -> str:
  """What to do where JAX knows too little, by what the environment says."""
  names = os.environ
  explicit = "give " + ", ".join(missing)
  if "SLURM_JOB_ID" in names and "SLURM_STEP_NODELIST" not in names:
    return (
      "SLURM_STEP_NODELIST is not set: in a batch script start sae-jax with"
      f" srun, or {explicit}"
    )
  if "OMPI_COMM_WORLD_SIZE" in names:
    return (
      "Open MPI 5 does not set OMPI_MCA_orte_hnp_uri, so"
      f" {explicit}; size and number are in OMPI_COMM_WORLD_SIZE and"
      " OMPI_COMM_WORLD_RANK"
    )
  if "KUBERNETES_SERVICE_HOST" in names:
    return (
      "In Kubernetes JAX needs `pip install 'jax[k8s]'`, an indexed Job"
      " (JOB_COMPLETION_INDEX) and a service account that may read pods and"
      f" jobs; or {explicit}"
    )
  return (
    "Start the job under Slurm, Open MPI, Kubernetes or on a TPU slice, or"
    f" {explicit}"
  )


def _alone_on_host() -> bool:
  """Whether Slurm or Open MPI started one process on this host."""
  nodes = os.environ.get("SLURM_STEP_NUM_NODES")
  return (
    nodes is not None and nodes == os.environ.get("SLURM_NTASKS")
  ) or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def _who() -> str:
  host = socket.gethostname()
  return f"sae-jax: this process of the job ({host}, pid {os.getpid()})"


def _start_speaker() -> None:
  """Starts what speaks for a process that JAX ends from C++, or is killed."""
  global _speaker
  _speaker = subprocess.Popen(
    ["/bin/sh", "-c", _SPEAKER],
    stdin=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    start_new_session=True,
  )


def _last_words(words: str) -> None:
  """What is said when this process ends without a word; "" for nothing."""
  if _speaker is not None and _speaker.stdin is not None:
    _speaker.stdin.write(f"{words}\n".encode())
    _speaker.stdin.flush()
