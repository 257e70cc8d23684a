# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What a process is started with, engine by engine, and what is missing."""

import jax
import pytest
from jax._src import clusters

from sae_jax import errors, processes

SLURM = {
  "SLURM_JOB_ID": "5",
  "SLURM_STEP_NODELIST": "node[1-2]",
  "SLURM_STEP_NUM_NODES": "2",
  "SLURM_NTASKS": "2",
  "SLURM_PROCID": "1",
  "SLURM_LOCALID": "0",
}


@pytest.fixture
def started(monkeypatch):
  """The last start of JAX's service: its own detection, but no connection."""
  seen = {}

  def initialize(
    coordinator,
    count,
    process,
    *,
    cluster_detection_method,
    heartbeat_timeout_seconds,
  ):
    devices = None
    if cluster_detection_method != "deactivate":
      detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
      coordinator, count, process, devices = detect(
        coordinator, count, process, None, cluster_detection_method, 1
      )
    if coordinator is None:
      raise ValueError("coordinator_address should be defined.")
    if count is None:
      raise ValueError("Number of processes must be defined.")
    if devices is not None:
      visible = ",".join(map(str, devices))
      jax.config.update("jax_cuda_visible_devices", visible)
      jax.config.update("jax_rocm_visible_devices", visible)
    assert heartbeat_timeout_seconds == 60
    seen.update(coordinator=coordinator, count=count, process=process)
    seen.update(gpus=jax.config.read("jax_cuda_visible_devices"))

  before = jax.config.read("jax_cuda_visible_devices")
  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  monkeypatch.setattr(processes, "_start_speaker", lambda: None)
  yield seen
  for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
    jax.config.update(name, before)


def set_all(monkeypatch, values):
  for name, value in values.items():
    monkeypatch.setenv(name, value)


def test_flags_go_before_variables_and_both_before_the_engine(
  started, monkeypatch
):
  set_all(monkeypatch, SLURM)
  set_all(
    monkeypatch,
    {
      "JAX_COORDINATOR_ADDRESS": "a:1",
      "JAX_NUM_PROCESSES": "3",
      "JAX_PROCESS_ID": "2",
    },
  )
  processes.join()
  assert started == dict(coordinator="a:1", count=3, process=2, gpus="all")
  processes.join("b:2", 4, 0)
  assert started == dict(coordinator="b:2", count=4, process=0, gpus="all")


def test_one_slurm_task_per_node_has_all_of_its_gpus(started, monkeypatch):
  set_all(monkeypatch, SLURM)
  processes.join()
  port = 61440 + 5
  assert started == dict(
    coordinator=f"node1:{port}", count=2, process=1, gpus="0"
  )  # what JAX does
  assert jax.config.read("jax_cuda_visible_devices") == "all"
  assert jax.config.read("jax_rocm_visible_devices") == "all"


def test_one_slurm_task_per_gpu_has_its_own(started, monkeypatch):
  set_all(monkeypatch, SLURM | {"SLURM_NTASKS": "16", "SLURM_LOCALID": "3"})
  processes.join()
  assert jax.config.read("jax_cuda_visible_devices") == "3"


def test_one_mpi_rank_per_node_has_all_of_its_gpus(started, monkeypatch):
  ranks = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    "OMPI_VERSION": "4.1.4",
  }
  set_all(monkeypatch, ranks)
  processes.join()
  assert started["coordinator"].startswith("10.96.0.1:")
  assert (started["count"], started["process"]) == (2, 1)
  assert jax.config.read("jax_cuda_visible_devices") == "all"


@pytest.mark.parametrize(
  ("environment", "given", "said"),
  [
    (
      {},
      (),
      r"give --coordinator=HOST:PORT \(or JAX_COORDINATOR_ADDRESS\),"
      r" --processes=N \(or JAX_NUM_PROCESSES\), --process=I"
      r" \(or JAX_PROCESS_ID\)$",
    ),
    (
      {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_PROCESS_ID": "0"},
      (),
      r"or give --processes=N \(or JAX_NUM_PROCESSES\)$",
    ),
    ({"SLURM_JOB_ID": "5"}, (), r"SLURM_STEP_NODELIST is not set.* srun"),
    (
      {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
      (),
      r"OMPI_MCA_orte_hnp_uri.*--coordinator",
    ),
    ({}, ("here", 2, 0), "--coordinator=here: give HOST:PORT"),
    ({}, ("a:1", 0, 0), "--processes=0: give a number >= 1"),
    ({}, ("a:1", 2, 2), "--process=2: processes are numbered from 0 to 1"),
    ({}, ("a:1", None, -1), "--process=-1"),
    ({"JAX_NUM_PROCESSES": "two"}, (), "JAX_NUM_PROCESSES=two: give a whole"),
  ],
)
def test_what_is_missing_or_wrong_is_named(
  started, monkeypatch, environment, given, said
):
  set_all(monkeypatch, environment)
  with pytest.raises(errors.InputError, match=said):
    processes.join(*given)
  assert not started


def test_kubernetes_without_its_package_is_told_what_to_install(
  started, monkeypatch
):
  monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
  with (
    pytest.warns(UserWarning, match="kubernetes"),
    pytest.raises(errors.InputError, match=r"jax\[k8s\].*JOB_COMPLETION_INDEX"),
  ):
    processes.join()


def test_the_last_words_are_said_when_the_process_is_gone(capfd):
  processes._start_speaker()
  processes._last_words("one")
  processes._last_words("the disk is 100 % full: \\n")
  processes._speaker.stdin.close()
  processes._speaker.wait()
  assert capfd.readouterr().err == "the disk is 100 % full: \\n\n"


@pytest.mark.parametrize("code", [0, 75, 1, 2, None])
def test_only_a_process_that_failed_does_not_wait_for_the_others(
  code, monkeypatch, capfd
):
  done = []

  class Timer:
    def __init__(self, seconds, function, args):
      done.append(("timer", seconds, *args))
      self.daemon = False

    def start(self):
      assert self.daemon

  monkeypatch.setattr(processes.threading, "Timer", Timer)
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
  monkeypatch.setattr(jax.distributed, "shutdown", lambda: done.append("left"))
  processes._start_speaker()
  processes._last_words("died")
  processes.leave(code)
  processes._speaker.stdin.close()
  processes._speaker.wait()
  said = capfd.readouterr().err
  if code in (0, 75):
    assert done == ["left"] and not said
  elif code is None:  # the interpreter prints the error and says goodbye
    assert done == [("timer", 10, 1)] and "failed, as said above" in said
  else:  # the message was printed
    assert done == [("timer", 10, code), "left"] and not said
