# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax submit` from its line to the engine's program, and its answer."""

import json
import os
import pathlib
import signal

import pytest
import yaml

from sae_jax import submit

SKY = ("--volume=v", "--out=/checkpoints/a")
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def submitted(command, capfd, config):
  """Runs `sae-jax submit` of a job; returns its result and what it showed."""

  def run(*words, job="train"):
    code = command("submit", *words, job, f"--config={config}")
    out, err = capfd.readouterr()
    assert code == 0, err
    shown, _, last = out.rstrip("\n").rpartition("\n")
    return json.loads(last), shown, err

  return run


@pytest.fixture
def refused(command, capfd, config):
  """Runs one that ends with code 2; returns its message."""

  def run(*words, job="train"):
    assert command("submit", *words, job, f"--config={config}") == 2
    out, err = capfd.readouterr()
    assert not out and "Traceback" not in err
    return err

  return run


@pytest.fixture
def home(tmp_path, monkeypatch):
  """A directory that is not in /tmp, as far as submit can see."""
  monkeypatch.setattr("sae_jax.submit.request._OF_ONE_HOST", ("/nowhere",))
  return tmp_path / "home"


def test_slurm_gets_options_script_and_job(submitted, program, home, config):
  sbatch = program("sbatch", "echo '4711;cluster'")
  result, _, _ = submitted(
    *("--engine=slurm", "--nodes=2", "--gpus=8", "--time=1:00:00"),
    *("--sbatch=--qos=high --comment='two words'", f"--out={home}/runs/a"),
  )
  (call,) = sbatch.calls()
  script = str(ROOT / "sae_jax" / "submit" / "templates" / "train.sbatch")
  assert call == [
    *("--parsable", "--job-name=train-a", "--nodes=2", "--gpus-per-node=8"),
    *("--time=1:00:00", f"--output={home}/runs/a.slurm-%j.log"),
    *("--qos=high", "--comment=two words", script),
    *("train", f"--config={config}", f"--out={home}/runs/a"),
  ]
  # Slurm drops a log whose directory is not there.
  assert (home / "runs").is_dir()
  assert result == {
    "engine": "slurm",
    "name": "train-a",
    "submitted": "4711",
    "watch": f"squeue --jobs=4711; tail -F {home}/runs/a.slurm-4711.log",
    "cancel": "scancel 4711",
    "resume": "the same command",
  }


def test_kubernetes_gets_the_manifest(submitted, program, tmp_path):
  kubectl = program(
    "kubectl", f'cp "${{3#*=}}" {tmp_path}/given; echo jobset/train-run created'
  )
  result, _, err = submitted(
    "--engine=gke", "--image=i", "--namespace=n", "--out=/shared/run"
  )
  (call,) = kubectl.calls()
  assert call[:2] == ["--namespace=n", "create"]
  assert yaml.safe_load((tmp_path / "given").read_text())["kind"] == "JobSet"
  assert "created" in err
  of = "kubectl --namespace=n"
  selector = "--selector=jobset.sigs.k8s.io/jobset-name=train-run"
  assert result == {
    "engine": "gke",
    "name": "train-run",
    "submitted": "train-run",
    "watch": f"{of} get jobset train-run; {of} logs --follow --prefix"
    f" {selector}",
    "cancel": f"{of} delete jobset train-run",
    "resume": f"{of} delete jobset train-run, then the same command",
  }


def test_skypilot_gets_the_task(submitted, program, tmp_path):
  sky = program(
    "sky", f'cp "${{@: -1}}" {tmp_path}/given; echo Managed Job ID: 1'
  )
  result, _, _ = submitted(
    *("--engine=skypilot", "--accelerators=H100:8", "--bucket=gs://b"),
    *("--name=mine", "--out=/checkpoints/run"),
  )
  (call,) = sky.calls()
  assert call[:-1] == ["jobs", "launch", "--yes", "--detach-run", "--name=mine"]
  task = yaml.safe_load((tmp_path / "given").read_text())
  assert task["workdir"] == str(ROOT)
  assert result["cancel"] == "sky jobs cancel --name mine"


def test_local_goes_on_when_submit_has_ended(
  submitted, program, tmp_path, monkeypatch
):
  monkeypatch.setattr("sae_jax.submit.plan._SOON_S", 0.2)
  monkeypatch.setattr("sae_jax.submit.plan.virtual_environment", dict)
  job = program("sae-jax", "echo started; exec sleep 60")
  result, _, _ = submitted("--engine=local", f"--out={tmp_path}/run")
  pid = int(result["submitted"])
  assert result["cancel"] == f"kill {pid}"
  assert result["watch"] == f"tail -f {tmp_path}/run.log"
  assert pathlib.Path(result["log"]).read_text() == "started\n"
  assert job.calls()[0][0] == "train"
  os.killpg(pid, signal.SIGKILL)
  os.waitpid(pid, 0)


def test_tpu_vm_is_left_to_its_script(
  submitted, program, tmp_path, monkeypatch, refused
):
  monkeypatch.chdir(tmp_path)
  program("gcloud", "echo no quota >&2; exit 1")
  words = ("--engine=tpu-vm", "--zone=z", "--accelerator=v6e-8")
  message = refused(*words, "--out=/shared/run")
  assert "it ended at once with code 1" in message and "no quota" in message
  result, shown, _ = submitted(*words, "--out=/shared/run", "--dry-run")
  assert "gcloud compute tpus queued-resources create train-run" in shown
  assert result["submitted"] is None
  assert result["log"] == str(tmp_path / "train-run.log")


def test_a_dry_run_shows_all_and_runs_nothing(submitted, program, home):
  programs = [program(n, "") for n in ("sbatch", "kubectl", "sky", "bash")]
  for words, expected in (
    (["slurm", f"--out={home}/a"], "sbatch --parsable --job-name=train-a"),
    (["gke", "--image=i", "--out=/shared/a"], "kubectl create --filename"),
    (
      ["skypilot", "--accelerators=L4", *SKY],
      "sky jobs launch --yes",
    ),
    (["local", f"--out={home}/a"], "nohup bash"),
  ):
    engine, *others = words
    result, shown, _ = submitted(f"--engine={engine}", *others, "--dry-run")
    assert expected in shown and result["submitted"] is None
    if engine in ("gke", "skypilot"):
      assert yaml.safe_load(shown.split("---\n")[0])
  assert not any(p.calls() for p in programs)
  assert not home.exists()


def test_a_missing_program_is_named_with_its_source(refused, home, monkeypatch):
  monkeypatch.setenv("PATH", "/nowhere")
  for words, expected in (
    (["slurm", f"--out={home}/a"], "no sbatch on the PATH; submit on a login"),
    (
      ["gke", "--image=i", "--out=/shared/a"],
      "no kubectl on the PATH; install",
    ),
    (["skypilot", "--accelerators=L4", *SKY], "no sky on the PATH"),
    (
      ["tpu-vm", "--zone=z", "--accelerator=v6e-8", "--out=/shared/a"],
      "no gcloud on the PATH; install it from https://cloud.google.com",
    ),
  ):
    engine, *others = words
    assert expected in refused(f"--engine={engine}", *others)


def test_an_engine_that_refuses_ends_with_its_reason(refused, program):
  program("kubectl", "echo 'jobsets \"train-a\" already exists' >&2; exit 1")
  message = refused("--engine=gke", "--image=i", "--out=/shared/a")
  assert "already exists" in message
  assert "again: kubectl delete jobset train-a, then" in message


def test_a_wrong_config_is_found_before_it_waits_in_a_queue(refused, program):
  kubectl = program("kubectl", "")
  words = ("--engine=gke", "--image=i", "--out=/shared/a")
  assert "did you mean 'latents'" in refused(*words, "--config.sae.latent=1")
  assert "takes HarvestConfig" in refused(*words, job="harvest")
  assert "--config.steps=many: expected int" in refused(
    *words, "--config.steps=many"
  )
  assert not kubectl.calls()


def test_checkpoints_in_a_bucket_serve_several_hosts(submitted, refused):
  """What every host writes is then not written through its own cache."""
  words = ("--engine=skypilot", "--accelerators=L4", "--nodes=2")
  words = (*words, "--bucket=gs://b", "--out=/checkpoints/a", "--dry-run")
  assert "--config.checkpoints=gs://b/NAME too" in refused(*words)
  submitted(*words, "--config.checkpoints=gs://b/a")


def test_a_job_of_one_process_is_not_sent_to_several_hosts(
  command, capfd, tmp_path
):
  (tmp_path / "report.py").write_text(
    "from sae_jax.jobs import organism\n"
    "def get_config():\n"
    "  return organism.Config()\n"
  )
  line = ("organism", f"--config={tmp_path}/report.py", "--out=/shared/a")
  gke = ("submit", "--engine=gke", "--image=i", "--dry-run")
  assert command(*gke, "--nodes=2", *line) == 2
  assert "only harvest and train run on several" in capfd.readouterr().err
  assert command(*gke, *line) == 0


def test_help_is_the_manual(command, capfd):
  assert command("submit", "--help") == 0
  assert capfd.readouterr().out.rstrip("\n") == submit.usage()
