# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What `sae-jax submit` makes of its words, and refuses before submitting."""

import pathlib

import pytest

from sae_jax import errors, submit

GKE = ("gke", "/shared/run", "--image=R/sae-jax:tpu")
TPU = ("tpu-vm", "/shared/run", "--zone=z", "--accelerator=v6e-16")
SKY = ("skypilot", "/checkpoints/run", "--accelerators=H100:8")


def read(*words):
  return submit.read(list(words), submit.ENGINES, ["train", "diff"])


def test_the_words_are_sorted_into_engine_options_and_job(tmp_path):
  engine, options, request = read(
    *("--engine=slurm", "--nodes=2", "--dry-run", "train", "--config=~/c.py"),
    *("--config.sae.k=8", "--out=/d/Run 7", "--peer_timeout=30"),
  )
  assert engine == "slurm"
  assert options.nodes == 2 and options.dry_run
  assert request.config.is_absolute() and request.config.name == "c.py"
  assert request.words("C") == [
    *("train", "--config=C", "--config.sae.k=8", "--out=/d/Run 7"),
    "--peer_timeout=30",
  ]
  assert request.name(None) == "train-run-7"
  assert request.name("mine") == "mine"


@pytest.mark.parametrize(
  ("words", "expected"),
  [
    (["train"], "--engine=: choose one of local, slurm, gke, tpu-vm, skypilot"),
    (["--engine=pbs", "train"], "--engine=pbs: choose one of"),
    (["--engine=local"], "no job: name one job of train, diff"),
    (["--engine=local", "trian"], "trian: name one job"),
    (["--engine=local", "train", "--out=x"], "train: --config=CONFIG is"),
    (["--engine=local", "train", "--config=x"], "train: --out=OUT is missing"),
    (
      ["--engine=local", "train", "--config=x", "--out=x", "--distributed"],
      "leave out --distributed",
    ),
    (
      ["--engine=slurm", "train", "--config=x", "--out=x", "--node=2"],
      "no option --node; did you mean --nodes?",
    ),
    (
      ["--engine=slurm", "train", "--config=x", "--out=x", "--nodes=two"],
      "--nodes=two: expected int",
    ),
  ],
)
def test_wrong_words_are_answered_with_the_right_ones(words, expected):
  with pytest.raises(errors.InputError) as caught:
    read(*words)
  assert expected in str(caught.value)
  assert "--config.nodes" not in str(caught.value)


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    # An --out that the hosts of a job do not share.
    (("slurm", "/tmp/run"), "every host has a /tmp of its own"),
    (("slurm", "/dev/shm/run"), "every host has a /dev/shm of its own"),
    ((*GKE[:1], "run", GKE[2]), "do not know the directory you are in"),
    ((*GKE[:1], "/home/me/run", GKE[2]), "is lost with the pod; give a"),
    ((*GKE[:1], "/shared2/run", GKE[2]), "is lost with the pod; give a"),
    ((TPU[0], "/var/tmp/run", *TPU[2:]), "every host has a /var/tmp"),
    ((SKY[0], "/checkpoints/run", SKY[2]), "is lost with the machine"),
    ((SKY[0], "/data/r", SKY[2], "--bucket=gs://b"), "is lost with the"),
    (("local", "gs://b/run"), "give a directory of this host"),
    ((*GKE[:1], "gs://b/run", GKE[2]), "jobs write to a directory"),
    (("slurm", "gs://b/run"), "jobs write to a directory"),
    (("slurm", "/home/me/run"), "experiment.py: every host has a /tmp of"),
    # Options that are missing or do not fit.
    (("gke", "/shared/run"), "--image=IMAGE is missing"),
    ((*GKE, "--topology=4x4"), "give its --accelerator too: tpu-v6e-slice"),
    ((*GKE, "--accelerator=tpu-v6e-slice"), "the slice's --topology=4x4"),
    (
      (*GKE, "--accelerator=tpu-v6e-slice", "--topology=four"),
      "--topology=four: write it as",
    ),
    (
      (*GKE, "--accelerator=tpu-v5p-slice", "--topology=3x3x3"),
      "has 27 chips, which hosts of 4 cannot share",
    ),
    ((*GKE, "--gpus=0"), "--gpus=0: give a number >= 1"),
    ((*TPU, "--slices=0"), "--slices=0: give a number >= 1"),
    ((*SKY, "--nodes=-1"), "--nodes=-1: give a number >= 1"),
    (("slurm", "/home/me/run", "--nodes=0"), "--nodes=0: give a number"),
    ((*GKE, "--name=My_Run"), "--name=My_Run: give at most 40 small letters"),
    ((*GKE, "--name=" + "a" * 41), "give at most 40 small letters"),
    (("tpu-vm", "/shared/run", "--zone=z"), "--accelerator=ACCELERATOR is"),
    ((*TPU, "--source=/"), "--source=/ holds no pyproject.toml"),
    (("skypilot", "/checkpoints/r"), "--accelerators=ACCELERATORS is"),
    ((*SKY, "--bucket=b"), "--bucket=b: write it as gs://"),
    ((*SKY, "--bucket=gs://b", "--nodes=2"), "does not at once see there"),
    ((*SKY, "--bucket=gs://b", "--volume=v"), "--bucket or --volume"),
  ],
)
def test_what_cannot_work_there_is_refused_here(plan, arguments, expected):
  with pytest.raises(errors.InputError) as caught:
    plan(*arguments)
  assert expected in str(caught.value)


def test_restarts_reach_every_script(plan, monkeypatch):
  monkeypatch.setattr("sae_jax.submit.request._OF_ONE_HOST", ())
  for arguments in (("local", "/x/run"), ("slurm", "/x/run"), TPU):
    assert plan(*arguments).environment["RESTARTS"] == "3"
    assert plan(*arguments, "--restarts=9").environment["RESTARTS"] == "9"
    assert (
      "RESTARTS:-3" in pathlib.Path(script_of(plan(*arguments))).read_text()
    )


def script_of(made):
  return next(w for w in made.command if "/templates/" in w)


def test_the_manual_names_every_engine_and_option():
  manual = submit.usage()
  for engine, module in submit.ENGINES.items():
    assert engine in manual
    assert module.Options(name="x").name == "x"
  assert "--gpus=8" in manual and "--nodes=1" in manual
