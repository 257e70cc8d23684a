# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""tpu_vm.sh, with a gcloud whose only host is a directory here."""

import pathlib
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "tpu_vm.sh"
# `gcloud compute tpus queued-resources VERB NAME ...`.
GCLOUD = """
case $4 in
  list) cat "$STATE" 2>/dev/null ;;
  create) head -n 1 "$NEXT" >"$STATE"; sed -i 1d "$NEXT" ;;
  delete) rm "$STATE" ;;
  scp) cp "$5" "$HOME/${6#*:}" ;;
  ssh)
    for word in "$@"; do
      [[ $word == --command=* ]] && exec bash -c "${word#--command=}"
    done ;;
  describe) echo "why it FAILED" ;;
esac
true
"""
# Does what the first line of CODES says: an exit code, or to vanish with the
# whole slice.
SAE_JAX = """#!/usr/bin/env bash
printf '<%s>' "$@"; echo
code=$(head -n 1 "$CODES"); sed -i 1d "$CODES"
[[ $code == preempted ]] || exit "$code"
echo SUSPENDED >"$STATE"
kill -KILL $PPID
"""
LINE = ("train", "--config.hook=a 'b' $c", "--out=/shared/run")


@pytest.fixture
def tpu(tmp_path, program, monkeypatch, config):
  """Runs the script; returns its result and gcloud's verbs."""
  host = tmp_path / "host"
  for name, script in (
    (".local/bin/uv", "#!/bin/sh\n"),
    ("sae_jax_venv/bin/sae-jax", SAE_JAX),
  ):
    path = host / name
    path.parent.mkdir(parents=True)
    path.write_text(script)
    path.chmod(0o755)
  gcloud = program("gcloud", GCLOUD)
  program("python3", "true")
  source = tmp_path / "checkout"
  (source / "sae_jax").mkdir(parents=True)
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    (source / name).write_text(name)
  for name, value in {
    "HOME": host,
    "STATE": tmp_path / "state",
    "NEXT": tmp_path / "next",
    "CODES": tmp_path / "codes",
    "POLL_SECONDS": "0",
  }.items():
    monkeypatch.setenv(name, str(value))

  def run(codes, *options, states="ACTIVE\n" * 3):
    (tmp_path / "next").write_text(states)
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    done = subprocess.run(
      [
        *(str(SCRIPT), "--zone=z", "--accelerator=v6e-16", "--name=mine"),
        *(f"--source={source}", f"--config={config}", *options, *LINE),
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=60,
    )
    verbs = [call[3] for call in gcloud.calls()]
    return done, verbs, gcloud.calls()

  run.host = host
  run.state = tmp_path / "state"
  return run


def test_a_job_runs_on_a_slice_that_is_given_back(tpu, config):
  done, verbs, calls = tpu([0], "--spot", "--setup=touch ~/mounted")
  assert done.returncode == 0, done.stdout
  assert verbs[:3] == ["list", "create", "list"] and verbs[-1] == "delete"
  create = next(call for call in calls if call[3] == "create")
  assert create[4:] == [
    *("mine", "--node-id=mine", "--accelerator-type=v6e-16"),
    *("--runtime-version=v2-alpha-tpuv6e", "--spot", "--zone=z"),
  ]
  # The words arrive as they were given, through two shells.
  words = [*LINE, f"--config={tpu.host}/sae_jax_config.py", "--distributed"]
  said = "".join(f"<{word}>" for word in words)
  assert said in done.stdout
  assert (tpu.host / "sae_jax_job.log").read_text() == said + "\n"
  assert (tpu.host / "sae_jax_config.py").read_text() == config.read_text()
  assert (tpu.host / "sae_jax_source" / "pyproject.toml").exists()
  assert (tpu.host / "mounted").exists()
  assert not tpu.state.exists()


def test_a_preempted_slice_is_asked_for_anew(tpu):
  done, verbs, _ = tpu(["preempted", 0])
  assert done.returncode == 0, done.stdout
  assert verbs.count("create") == 2 and verbs.count("delete") == 2
  assert "mine is SUSPENDED" in done.stdout


@pytest.mark.slow
def test_a_crash_starts_again_and_a_stop_does_too(tpu):
  done, verbs, _ = tpu([1, 75, 134, 0])
  assert done.returncode == 0, done.stdout
  assert verbs.count("create") == 1
  assert "starts again from its last checkpoint (2 of 3 times)" in done.stdout


def test_wrong_input_is_not_tried_again(tpu):
  done, _, calls = tpu([2], "--keep", "--slices=2", "--project=p")
  assert done.returncode == 2 and "starts again" not in done.stdout
  assert "is kept, and paid for, until: gcloud" in done.stdout
  assert tpu.state.read_text() == "ACTIVE\n"
  create = next(call for call in calls if call[3] == "create")
  assert create[5:7] == ["--node-count=2", "--node-prefix=mine"]
  assert all("--project=p" in call for call in calls)


def test_the_same_command_finds_the_slice_again(tpu):
  tpu.state.write_text("ACTIVE\n")
  done, verbs, _ = tpu([0])
  assert done.returncode == 0 and "create" not in verbs


def test_a_slice_that_cannot_be_had_is_an_error(tpu):
  done, verbs, _ = tpu([0], states="FAILED\n")
  assert done.returncode == 1
  assert "why it FAILED" in done.stdout and "could not be had" in done.stdout
  assert "ssh" not in verbs


def test_a_dry_run_calls_nothing(tpu):
  done, verbs, _ = tpu([0], "--dry_run")
  assert done.returncode == 0 and not verbs
  printed = [
    line.split()[4] for line in done.stdout.splitlines() if "gcloud" in line
  ]
  assert printed[0] == "create" and printed[-1] == "delete"
  assert printed.count("scp") == 2 and printed.count("ssh") == 3


@pytest.mark.parametrize(
  ("words", "expected"),
  [
    ([], "--zone=ZONE is missing"),
    (["--zone=z"], "--accelerator=TYPE is missing"),
    (["--zone=z", "--accelerator=v6e-8"], "no job is named"),
    (["--zone=z", "--accelerator=v6e-8", "train"], "there is no such file"),
  ],
)
def test_wrong_words_are_named(words, expected):
  done = subprocess.run(
    [str(SCRIPT), *words], stderr=subprocess.PIPE, text=True
  )
  assert done.returncode == 2 and expected in done.stderr
