# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""launch/slurm/train.sbatch by itself, with stand-ins for Slurm and the job."""

import os
import pathlib
import re
import subprocess

import private_slurm
import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "slurm" / "train.sbatch"

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
  "sae-jax": (
    'echo "sae-jax $*, port ${JAX_COORDINATOR_PORT:-}"\n'
    'echo >>"$CALLS"\n'
    "codes=($CODE)\n"
    'exit "${codes[$(wc -l <"$CALLS") - 1]}"'
  ),
}


@pytest.fixture
def alone(tmp_path):
  """Runs the script with stand-ins for all that it calls."""
  (tmp_path / "bin").mkdir()
  for name, body in COMMANDS.items():
    private_slurm.executable(tmp_path / "bin" / name, body)

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
      | {"CALLS": str(tmp_path / "calls")}
      | environment,
      capture_output=True,
      text=True,
    )

  return call


def test_outside_slurm_it_says_how_to_submit_it(alone):
  result = alone("train")
  assert result.returncode == 2
  assert "sbatch [SBATCH OPTIONS] launch/slurm/train.sbatch" in result.stderr
  assert result.stderr.endswith('"stopped, saved, can go on".\n')


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
    "train",
    SLURM_JOB_ID="7",
    SLURM_NTASKS="1",
    CODE=str(code),
    RESTARTS="0",
    STATE=state,
  )
  assert result.returncode == code
  assert ("scontrol requeue Incomplete 7" in result.stdout) == requeues
  assert says in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
  ("codes", "ends"),
  [("137 1 0", 0), ("1 75", 75), ("1 2", 2), ("1 1 1 134", 134)],
)
def test_a_crashed_job_starts_again_three_times(alone, codes, ends):
  result = alone("train", SLURM_JOB_ID="7", SLURM_NTASKS="1", CODE=codes)
  assert result.returncode == ends
  assert result.stdout.count("sae-jax train") == len(codes.split())
  assert "ended with 1; it starts again" in result.stderr


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
    CODE="1 75",
    TOLD="yes",
    SECONDS=str(seconds),
  )
  # Told to stop, it does not start again. (And a trap that ended with another
  # code would end the script with it.)
  assert result.returncode == (1 if stops else 75), result.stderr
  assert says in result.stderr
  assert ("scancel --signal=TERM 7" in result.stdout) == stops
