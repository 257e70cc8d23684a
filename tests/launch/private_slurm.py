# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A private Slurm of two nodes on this host, and jobs in it.

Needs root and Debian's slurmctld, slurmd, slurm-client and munge.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import time

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "slurm" / "train.sbatch"
# Debian keeps daemons where only root looks.
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "setpriv")
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

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
    """Until its fields are these; a job that ends otherwise ends the test."""
    for _ in patiently(300):
      found = self.show()
      if all(found[name] == value for name, value in expected.items()):
        return
      if found["JobState"] in ENDS:
        break
    raise AssertionError(f"{expected}, but {found}:\n{self.log.read_text()}")

  def wait_file(self, name: str, lines: int = 0) -> None:
    path = self.log.parent / name
    for _ in patiently(300):
      if path.exists() and len(path.read_bytes().splitlines()) >= lines:
        return
      if self.show()["JobState"] in ENDS:
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
      env=surroundings(self.place) | environment,
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


def surroundings(place):
  """The environment, in which another Slurm may have set its variables."""
  mine = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("SLURM", "SBATCH", "SRUN"))
  }
  return mine | {"PATH": PATH, "SLURM_CONF": str(place / "slurm.conf")}


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


def why_not() -> str:
  """Why it cannot be started here; empty if it can."""
  missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
  if missing:
    return (
      f"Slurm is not installed (no {', '.join(missing)}): apt-get install"
      " --no-install-recommends slurmctld slurmd slurm-client munge"
    )
  if os.geteuid() != 0:
    return "a private Slurm can be started by root only"
  host = host_name()
  try:
    socket.gethostbyname(host)
  except OSError:
    return f"this host's name, {host}, does not resolve"
  return ""


def host_name():
  return socket.gethostname().split(".")[0]


@contextlib.contextmanager
def start(place: pathlib.Path):
  """Yields a Slurm whose daemons end with the block, however that ends."""
  (place / "state").mkdir()
  host = host_name()
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
  slurm = Slurm(place)
  with contextlib.ExitStack() as stack:
    for argv in (
      [*munged, f"--socket={place}/munge.socket"],
      ["slurmctld", "-D", "-c"],
      ["slurmd", "-D", "-N", host],
      ["slurmd", "-D", "-N", f"{host}-b"],
    ):
      stack.enter_context(daemon(argv, place))
    for _ in patiently(60):
      with contextlib.suppress(AssertionError):
        if slurm.call("sinfo", "-h", "-o", "%D %t").split() == ["2", "idle"]:
          break
    else:
      raise AssertionError(f"Slurm does not start; its logs are in {place}")
    try:
      yield slurm
    finally:
      slurm.call("scancel", "--signal=KILL", "--full", "--state=RUNNING")


@contextlib.contextmanager
def daemon(argv, place):
  """Ends with the test, or with the process that runs the tests."""
  with open(place / f"{argv[0]}.out", "ab") as out:
    process = subprocess.Popen(
      ["setpriv", "--pdeathsig=TERM", "--", *argv],
      env=surroundings(place),
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


def executable(path, body):
  path.write_text(f"#!/usr/bin/env bash\n{body}\n")
  path.chmod(0o755)
