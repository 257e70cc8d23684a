# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""launch/slurm/train.sbatch: what it makes of every end of a job.

The slow tests submit it to a private Slurm of two nodes on this host; they need
root and Debian's slurmctld, slurmd, slurm-client and munge.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from sae_jax import metrics, store

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "slurm" / "train.sbatch"
HOOK = "blocks.0.hook_resid_post"
# After a signal the processes agree within about a second; a step takes 10 ms
# on two cores and may take 3 on more.
STEPS = 500
# Debian keeps daemons where only root looks.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

# ----------------------------------------------------------- without Slurm

# Stand for Slurm and the job; srun also for Slurm's word about the time limit.
COMMANDS = {
  "srun": (
    "while [[ $1 == --* ]]; do shift; done\n"
    '[[ -z ${TOLD:-} ]] || { kill -USR1 "$PPID"; sleep 0.3; }\n'
    '"$@"'
  ),
  "scancel": 'echo "scancel $*"',
  "scontrol": 'echo "scontrol $*"',
  "squeue": 'echo "$STATE"',
  "sae-jax": 'echo "sae-jax $*, port ${JAX_COORDINATOR_PORT:-}"; exit "$CODE"',
}


@pytest.fixture
def alone(tmp_path):
  """Runs the script with stand-ins for all that it calls."""
  (tmp_path / "bin").mkdir()
  for name, body in COMMANDS.items():
    executable(tmp_path / "bin" / name, body)

  def call(*argv, **environment):
    plain = {
      name: value
      for name, value in os.environ.items()
      if not name.startswith(("SLURM", "VENV"))
    }
    return subprocess.run(
      ["bash", SCRIPT, *argv],
      env=plain
      | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
      | {"SLURM_JOB_NODELIST": "n[1-2]", "STATE": "RUNNING"}
      | environment,
      capture_output=True,
      text=True,
    )

  return call


def executable(path, body):
  path.write_text(f"#!/usr/bin/env bash\n{body}\n")
  path.chmod(0o755)


def test_outside_slurm_it_says_how_to_submit_it(alone):
  result = alone("train")
  assert result.returncode == 2
  assert "sbatch [SBATCH OPTIONS] launch/slurm/train.sbatch" in result.stderr
  assert "#SBATCH" not in result.stderr


def test_a_missing_environment_is_named(alone):
  result = alone("train", SLURM_JOB_ID="1", VENV="/nowhere")
  assert result.returncode == 2
  assert "finds no /nowhere/bin/sae-jax" in result.stderr


@pytest.mark.parametrize("tasks", ["1", "2"])
def test_several_processes_join(alone, tasks):
  result = alone("train", SLURM_JOB_ID="1", SLURM_NTASKS=tasks, CODE="0")
  assert result.returncode == 0, result.stderr
  joined = re.fullmatch(
    r"sae-jax train --distributed, port \d+\n", result.stdout
  )
  assert joined if tasks == "2" else result.stdout == "sae-jax train, port \n"


@pytest.mark.parametrize(
  ("code", "state", "requeues", "says"),
  [
    (0, "RUNNING", False, "done"),
    (75, "RUNNING", True, "back into the queue"),
    (75, "COMPLETING", False, "otherwise with the same sbatch command"),
    (2, "RUNNING", False, "what to mend"),
    (137, "RUNNING", False, "failed with exit code 137"),
  ],
)
def test_what_follows_an_exit_code(alone, code, state, requeues, says):
  result = alone(
    "train", SLURM_JOB_ID="7", SLURM_NTASKS="1", CODE=str(code), STATE=state
  )
  assert result.returncode == code
  assert ("scontrol requeue Incomplete 7" in result.stdout) == requeues
  assert says in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
  ("seconds", "stops", "says"),
  [
    (0, False, "the run goes on until the limit ends it"),
    (100, True, "the run is asked to save and to stop"),
  ],
)
def test_told_of_the_limit_at_once_it_goes_on(alone, seconds, stops, says):
  result = alone(
    "train",
    SLURM_JOB_ID="7",
    SLURM_NTASKS="1",
    CODE="75",
    TOLD="yes",
    SECONDS=str(seconds),
  )
  # A trap that ends with another code would end the script with it.
  assert result.returncode == 75, result.stderr
  assert says in result.stderr
  assert ("scancel --signal=TERM 7" in result.stdout) == stops


# -------------------------------------------------------------- with Slurm

# Two nodes on one host. Nothing of it needs cgroups, accounting or a service.
# cred_expire is how long a requeued job waits; KillWait what saving may take.
CONF = """
ClusterName=t
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={place}/munge.socket,cred_expire=5
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=20
SchedulerParameters=sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName={host}-b NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclasses.dataclass(frozen=True)
class Job:
  """A submitted job; `log` is what a user would read."""

  slurm: "Slurm"
  number: str
  log: pathlib.Path

  def show(self) -> dict[str, str]:
    line = self.slurm.call("scontrol", "show", "--oneliner", "job", self.number)
    return dict(word.split("=", 1) for word in line.split() if "=" in word)

  def wait(self, **expected: str) -> None:
    """Until its fields are these; a job that failed instead ends the test."""
    for _ in patiently(300):
      found = self.show()
      if all(found[name] == value for name, value in expected.items()):
        return
      if found["JobState"] == "FAILED":
        break
    raise AssertionError(f"{expected}, but {found}:\n{self.log.read_text()}")

  def wait_file(self, name: str, lines: int = 0) -> None:
    path = self.log.parent / name
    for _ in patiently(300):
      if path.exists() and len(path.read_bytes().splitlines()) >= lines:
        return
      if self.show()["JobState"] == "FAILED":
        break
    raise AssertionError(f"no {name}:\n{self.log.read_text()}")

  def start_soon(self) -> None:
    """A requeued job waits until its old credentials lapse; not this one.

    New ones have to be of a later second than the end of the last start.
    """
    self.wait(JobState="PENDING")
    self.slurm.call(
      "scontrol", "update", f"JobId={self.number}", "StartTime=now+2seconds"
    )


@dataclasses.dataclass(frozen=True)
class Slurm:
  """A private cluster whose files are in `place`."""

  place: pathlib.Path

  def call(self, *argv: str, **environment: str) -> str:
    result = subprocess.run(
      argv,
      env=os.environ
      | {"PATH": PATH, "SLURM_CONF": str(self.place / "slurm.conf")}
      | environment,
      capture_output=True,
      text=True,
    )
    assert result.returncode == 0, (argv, result.stderr)
    return result.stdout

  def submit(self, directory: pathlib.Path, *argv: str, **environment) -> Job:
    """The script on both nodes, called in `directory`."""
    number = self.call(
      *("sbatch", "--parsable", "--nodes=2", f"--chdir={directory}"),
      *(f"--output={directory}/log", str(SCRIPT), *argv),
      **environment,
    )
    return Job(self, number.strip(), directory / "log")


def patiently(seconds):
  """Yields every 0.1 s, for so long."""
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    yield
    time.sleep(0.1)


def free_ports(count):
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in sockets:
      one.bind(("127.0.0.1", 0))
    return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
  missing = [
    name
    for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun")
    if not shutil.which(name, path=PATH)
  ]
  if missing:
    pytest.skip(
      f"Slurm is not installed (no {', '.join(missing)}): apt-get install"
      " --no-install-recommends slurmctld slurmd slurm-client munge"
    )
  if os.geteuid() != 0:
    pytest.skip("a private Slurm can be started by root only")
  place = tmp_path_factory.mktemp("slurm")
  (place / "state").mkdir()
  host = socket.gethostname().split(".")[0]
  (place / "slurm.conf").write_text(
    CONF.format(host=host, place=place, ports=free_ports(3))
  )
  key = place / "munge.key"
  key.write_bytes(os.urandom(128))
  key.chmod(0o400)
  munged = ["munged", "--foreground", "--force", f"--key-file={key}"]
  munged += [
    f"--{name}-file={place}/munged.{name}" for name in ("pid", "log", "seed")
  ]
  cluster = Slurm(place)
  with contextlib.ExitStack() as stack:
    for argv in (
      [*munged, f"--socket={place}/munge.socket"],
      ["slurmctld", "-D", "-c"],
      ["slurmd", "-D", "-N", host],
      ["slurmd", "-D", "-N", f"{host}-b"],
    ):
      stack.enter_context(daemon(argv, place))
    for _ in patiently(20):
      with contextlib.suppress(AssertionError):
        if cluster.call("sinfo", "-h", "-o", "%D %t").split() == ["2", "idle"]:
          break
    else:
      pytest.fail(f"Slurm does not start; its logs are in {place}")
    stack.callback(
      cluster.call, "scancel", "--signal=KILL", "--full", "--state=RUNNING"
    )
    yield cluster


@contextlib.contextmanager
def daemon(argv, place):
  """Ends with the test, or with the process that runs the tests."""
  with open(place / f"{argv[0]}.out", "ab") as out:
    process = subprocess.Popen(
      ["setpriv", "--pdeathsig=TERM", "--", *argv],
      env=os.environ | {"PATH": PATH, "SLURM_CONF": str(place / "slurm.conf")},
      stdout=out,
      stderr=out,
      start_new_session=True,
    )
  try:
    yield
  finally:
    process.terminate()
    try:
      process.wait(10)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()


@pytest.fixture
def stoppable(slurm, tmp_path):
  """A running job of two tasks; started again, it is done at once."""
  (tmp_path / "bin").mkdir()
  executable(
    tmp_path / "bin" / "sae-jax",
    "[[ -e saved ]] && exit 0\n"
    "trap 'touch saved; exit 75' TERM\n"
    "touch started-$SLURM_PROCID\n"
    "while :; do sleep 0.1; done",
  )
  # Told of the limit in its first minute the script would go on.
  job = slurm.submit(tmp_path, "train", VENV=str(tmp_path), SECONDS="100")
  job.wait_file("started-0")
  job.wait_file("started-1")
  return job


@pytest.mark.slow
@pytest.mark.parametrize(
  ("signal", "says"),
  [
    # What --signal=B:USR1@180 does of itself when the time limit is near …
    (["--batch", "--signal=USR1"], "the time limit is near"),
    # … and a preemption when its grace time begins.
    (["--signal=TERM"], ""),
  ],
)
def test_told_to_stop_it_goes_back_into_the_queue(stoppable, signal, says):
  stoppable.slurm.call("scancel", *signal, stoppable.number)
  stoppable.start_soon()
  stoppable.wait(JobState="COMPLETED", Restarts="1", ExitCode="0:0")
  log = stoppable.log.read_text()
  assert says in log
  assert "back into the queue" in log
  assert "start 2, 2 process(es) on " in log
  assert "failed" not in log


@pytest.mark.slow
def test_a_cancelled_job_stays_cancelled(stoppable):
  stoppable.slurm.call("scancel", stoppable.number)
  stoppable.wait(JobState="CANCELLED", Restarts="0")
  assert (stoppable.log.parent / "saved").exists()
  log = stoppable.log.read_text()
  assert "otherwise with the same sbatch command" in log


CONFIG = """
from sae_jax import mesh, sae, stream
from sae_jax.train import config

def get_config():
  return config.TrainConfig(
    store={store!r}, hook={hook!r}, sae=sae.SaeConfig(latents=64, k=4),
    stream=stream.StreamConfig(batch_size=64, mix_chunks=4, lanes=2),
    mesh=mesh.MeshConfig(data=2, latent=2), steps={steps},
    checkpoint_every={steps}, log_every=1,
  )
"""


@pytest.mark.slow
def test_requeued_in_the_middle_it_ends_the_same_to_the_bit(slurm, tmp_path):
  x_ND = np.random.default_rng(0).normal(size=(1024, 16)).astype(np.float32)
  store.write_arrays(
    str(tmp_path / "store"), {HOOK: x_ND}, read_rows=32, write_rows=64
  )
  (tmp_path / "config.py").write_text(
    CONFIG.format(store=str(tmp_path / "store"), hook=HOOK, steps=STEPS)
  )
  jobs = {}
  for name in ("whole", "requeued"):
    (tmp_path / name).mkdir()
    jobs[name] = job = slurm.submit(
      tmp_path / name,
      *("train", "--config=../config.py", "--out=run"),
      VENV=sys.prefix,
      JAX_PLATFORMS="cpu",
      JAX_NUM_CPU_DEVICES="2",
      JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # compiles in half the time
      https_proxy="http://127.0.0.1:9",  # leads nowhere: not to be used
    )
    if name == "requeued":
      job.wait_file("run/metrics.jsonl", lines=STEPS // 10)
      slurm.call("scontrol", "requeue", job.number)
      job.start_soon()
    job.wait(JobState="COMPLETED", ExitCode="0:0")
  assert jobs["whole"].show()["Restarts"] == "0"
  assert jobs["requeued"].show()["Restarts"] == "1"
  log = jobs["requeued"].log.read_text()
  assert "start 2, 2 process(es) on " in log
  # Both saved at one step that no period asks for: the signal's own checkpoint.
  stops = re.findall(r"(\d): sae-jax: SIGTERM at step (\d+) of", log)
  assert {process for process, _ in stops} == {"0", "1"}, log
  assert len({step for _, step in stops}) == 1, log
  whole, requeued = (
    metrics.read(tmp_path / name / "run" / "metrics.jsonl") for name in jobs
  )
  assert [line["step"] for line in whole] == [x["step"] for x in requeued]
  for a, b in zip(whole, requeued, strict=True):
    for found in (a, b):
      for rate in [name for name in found if name.startswith("perf/")]:
        del found[rate]
    assert a == b
  whole, requeued = (
    safetensors.numpy.load_file(
      tmp_path / name / "run" / "sae" / "sae_weights.safetensors"
    )
    for name in jobs
  )
  assert whole.keys() == requeued.keys()
  for name, array in whole.items():
    np.testing.assert_array_equal(array, requeued[name], err_msg=name)
