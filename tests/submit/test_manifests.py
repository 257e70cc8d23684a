# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The manifests: what is filled in, and what starts again by them."""

import shlex
import shutil
import subprocess
import sys
import zipfile

import lines
import pytest
import yaml

from sae_jax.submit import gke
from sae_jax.submit import plan as plan_lib


def test_what_is_used_by_hand_is_what_is_submitted():
  for by_hand, template in lines.BY_HAND.items():
    assert (lines.LAUNCH / by_hand).samefile(plan_lib.TEMPLATES / template), (
      by_hand
    )


@pytest.mark.parametrize("arguments", [lines.TPU, lines.GPU])
def test_the_manifest_carries_the_config_and_the_job(
  rendered, config, arguments
):
  jobset = rendered(*arguments)
  container = lines.pod_of(jobset)["containers"][0]
  annotations = lines.job_of(jobset)["template"]["metadata"]["annotations"]
  assert annotations["sae-jax/config"] == config.read_text()
  mounted = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
  assert container["args"][:4] == [
    *("train", f"--config={mounted['config']}/config.py"),
    *("--config.steps=8", "--out=/shared/run"),
  ]
  assert ("--distributed" in container["args"]) == (arguments == lines.TPU)


def test_a_tpu_slice_has_a_pod_per_host(rendered):
  jobset = rendered(*lines.TPU, "--slices=2", "--restarts=3")
  job, pod = lines.job_of(jobset), lines.pod_of(jobset)
  assert job["completions"] == job["parallelism"] == 32 // 4
  assert jobset["spec"]["replicatedJobs"][0]["replicas"] == 2
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
    "cloud.google.com/gke-tpu-topology": "4x8",
  }
  assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
  assert (
    pod["hostNetwork"] and jobset["spec"]["failurePolicy"]["maxRestarts"] == 3
  )


@pytest.mark.parametrize(
  ("topology", "chips", "expected"),
  [
    ("1x1", None, (1, 1)),
    ("2x2", None, (4, 1)),
    ("2x4", None, (8, 1)),
    ("2x4", 4, (4, 2)),
    ("16x16", None, (4, 64)),
    ("2x2x1", None, (4, 1)),
    ("8x8x8", None, (4, 128)),
  ],
)
def test_hosts_of_a_topology(topology, chips, expected):
  """By Google's table of machine types (plan-tpus)."""
  assert gke.slice_hosts(topology, chips) == expected


def test_one_host_is_told_of_no_others(rendered):
  alone = rendered(
    *lines.TPU[:3], "--accelerator=tpu-v6e-slice", "--topology=2x4"
  )
  assert "--distributed" not in lines.pod_of(alone)["containers"][0]["args"]
  args = lines.pod_of(rendered(*lines.GPU, "--nodes=1"))["containers"][0][
    "args"
  ]
  assert not [w for w in args if "--process" in w or "--coordinator" in w]


def test_gpu_nodes_meet_at_the_first_pod(rendered):
  jobset = rendered(*lines.GPU, "--name=mine")
  container = lines.pod_of(jobset)["containers"][0]
  environment = {e["name"] for e in container["env"]}
  assert environment == {"JOBSET_NAME", "JOB_COMPLETION_INDEX"}
  # JobSet's names of pods: JOBSET-REPLICATEDJOB-0-0, in the subdomain JOBSET.
  name = jobset["spec"]["replicatedJobs"][0]["name"]
  assert container["args"][-3:] == [
    f"--coordinator=$(JOBSET_NAME)-{name}-0-0.$(JOBSET_NAME):8476",
    "--processes=3",
    "--process=$(JOB_COMPLETION_INDEX)",
  ]
  assert lines.job_of(jobset)["completions"] == 3
  assert "nodeSelector" not in lines.pod_of(jobset)


def test_queue_spot_and_volume_are_as_asked(rendered):
  plain = rendered(*lines.GPU)
  assert "labels" not in plain["metadata"]
  jobset = rendered(
    *("gke", "/data/run", "--image=i", "--mount=/data", "--claim=mine"),
    *("--queue=team", "--spot", "--accelerator=nvidia-l4"),
  )
  assert jobset["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}
  pod = lines.pod_of(jobset)
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-accelerator": "nvidia-l4",
    "cloud.google.com/gke-spot": "true",
  }
  claims = [v for v in pod["volumes"] if "persistentVolumeClaim" in v]
  assert claims[0]["persistentVolumeClaim"]["claimName"] == "mine"
  mounts = {
    m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]
  }
  assert mounts[claims[0]["name"]] == "/data"


def test_exit_codes_decide_what_starts_again(manifests):
  """2 fails the JobSet; 75 and an eviction are not counted; 1 is."""
  for jobset in manifests:
    if "kind" not in jobset:
      continue
    rules = lines.job_of(jobset)["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    codes = [rule.get("onExitCodes", {}).get("values") for rule in rules]
    assert codes == [[2], [75], None]
    assert rules[2]["onPodConditions"][0]["type"] == "DisruptionTarget"
    container = lines.pod_of(jobset)["containers"][0]["name"]
    for rule in rules[:2]:
      assert rule["onExitCodes"]["containerName"] == container
    wrong, interrupted = jobset["spec"]["failurePolicy"]["rules"]
    assert wrong["action"] == "FailJobSet"
    # As Kubernetes words the failure of a Job: "... matching FailJob rule at
    # index 0", 0 being that of code 2.
    assert wrong["onJobFailureMessagePatterns"] == [
      "matching FailJob rule at index 0$"
    ]
    assert interrupted["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    # Kubernetes refuses a podFailurePolicy with any other.
    assert lines.pod_of(jobset)["restartPolicy"] == "Never"
    assert lines.job_of(jobset)["backoffLimit"] == 0


def run_of(task, tmp_path, **environment):
  """The words that a task's script calls sae-jax with."""
  venv = tmp_path / "sae_jax_venv" / "bin"
  venv.mkdir(parents=True, exist_ok=True)
  (venv / "sae-jax").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
  (venv / "sae-jax").chmod(0o755)
  done = subprocess.run(
    ["bash", "-c", task["run"]],
    env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    | task["envs"]
    | environment,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return done.stdout.splitlines()


def test_a_sky_task_calls_the_job_on_one_and_several_machines(
  rendered, tmp_path
):
  task = rendered(*lines.SKY, "--volume=v", "--nodes=2")
  job = [
    *("train", f"--config={tmp_path}/sae_jax_config.py", "--config.steps=8"),
    "--out=/checkpoints/run",
  ]
  assert run_of(task, tmp_path, SKYPILOT_NUM_NODES="1") == job
  assert run_of(
    task,
    tmp_path,
    SKYPILOT_NUM_NODES="2",
    SKYPILOT_NODE_RANK="1",
    SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2",
  ) == [*job, "--coordinator=10.0.0.1:8476", "--processes=2", "--process=1"]
  tpu = rendered(*lines.SKY[:2], "--accelerators=tpu-v6e-16", "--volume=v")
  assert run_of(tpu, tmp_path)[-2:] == [
    "--out=/checkpoints/run",
    "--distributed",
  ]


def test_a_jobs_words_arrive_as_they_were_given(plan, tmp_path):
  strange = ("--config.hook=a 'b' \"c\" $HOME $(X) \\", "--config.store=#: {}")
  jobset = yaml.safe_load(plan(*lines.GPU, words=strange).document)
  args = lines.pod_of(jobset)["containers"][0]["args"]
  # Of Kubernetes, $$( is $( and $( asks for a variable.
  assert args[3:5] == [w.replace("$(", "$$(") for w in strange]
  task = yaml.safe_load(plan(*lines.SKY, "--volume=v", words=strange).document)
  said = run_of(task, tmp_path, SKYPILOT_NUM_NODES="1")
  assert said[3:5] == list(strange)


def test_a_sky_task_recovers_and_mounts_as_asked(rendered, config):
  task = rendered(
    *lines.SKY, "--bucket=s3://b/c", "--restarts=7", "--infra=aws"
  )
  resources = task["resources"]
  assert resources["use_spot"] is True and resources["infra"] == "aws"
  assert resources["job_recovery"]["recover_on_exit_codes"] == [75]
  assert resources["job_recovery"]["max_restarts_on_errors"] == 7
  assert task["file_mounts"] == {
    "~/sae_jax_config.py": str(config),
    "/checkpoints": {
      "source": "s3://b/c",
      "store": "s3",
      "mode": "MOUNT_CACHED",
    },
  }
  task = rendered(*lines.SKY, "--volume=v")
  assert task["volumes"] == {"/checkpoints": "v"}
  assert "/checkpoints" not in task["file_mounts"]


def test_sky_template_and_rendering_differ_only_in_the_job_line(rendered):
  shipped = plan_lib.manifest("skypilot.yaml")["run"].splitlines()
  filled = rendered(*lines.SKY, "--volume=v")["run"].splitlines()
  assert filled[:-1] == shipped[:-2]
  assert shlex.split(filled[-1])[:3] == shlex.split(shipped[-1])[:3]


@pytest.mark.slow
def test_a_wheel_has_the_templates(tmp_path):
  """Links are no use where nothing else of the checkout is."""
  pytest.importorskip("setuptools", minversion="77")
  root, source = lines.LAUNCH.parent, tmp_path / "source"
  # Not the checkout itself: setuptools leaves a build/ behind.
  shutil.copytree(
    root / "sae_jax" / "submit", source / "sae_jax" / "submit", symlinks=True
  )
  for name in ("pyproject.toml", "README.md", "LICENSE", "sae_jax/version.py"):
    shutil.copy(root / name, source / name)
  subprocess.run(
    [
      *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
      *("--no-build-isolation", f"--wheel-dir={tmp_path}", str(source)),
    ],
    check=True,
  )
  (wheel,) = tmp_path.glob("*.whl")
  with zipfile.ZipFile(wheel) as packed:
    for template in lines.BY_HAND.values():
      expected = (plan_lib.TEMPLATES / template).read_bytes()
      assert packed.read(f"sae_jax/submit/templates/{template}") == expected
