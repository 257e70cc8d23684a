# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""local.sh: what it makes of every end of a job."""

import pathlib
import signal
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "local.sh"


def run(*words):
  return subprocess.run(
    [str(SCRIPT), *words],
    capture_output=True,
    text=True,
    timeout=60,
  )


@pytest.mark.parametrize(
  ("code", "calls"), [(0, 1), (2, 1), (75, 1), (1, 3), (137, 3)]
)
def test_only_a_crash_starts_again(program, monkeypatch, code, calls):
  monkeypatch.setenv("RESTARTS", "2")
  job = program("sae-jax", f"exit {code}")
  done = run("train", "--out=a b")
  assert done.returncode == code
  assert job.calls() == [["train", "--out=a b"]] * calls
  assert ("2 of 2 times" in done.stderr) == (calls > 1)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_job_save(program, tmp_path, sent):
  started, saved = tmp_path / "started", tmp_path / "saved"
  program(
    "sae-jax",
    f"trap 'sleep 0.2; touch {saved}; exit 75' TERM\n"
    f"touch {started}\nwhile :; do sleep 0.05; done",
  )
  process = subprocess.Popen([str(SCRIPT), "train"])
  try:
    while not started.exists():
      assert process.poll() is None
    process.send_signal(sent)
    assert process.wait(timeout=30) == 75
  finally:
    process.kill()
  assert saved.exists()


def test_without_the_program_it_says_how_to_install_it(monkeypatch):
  monkeypatch.setenv("PATH", "/usr/bin:/bin")
  done = run("train")
  assert done.returncode == 2 and "pip install '.[tpu]'" in done.stderr
  done = run()
  assert done.returncode == 2 and "launch/local.sh JOB" in done.stdout
