# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The manifests: what is filled in, and whether the engines take them."""

import pathlib
import shlex
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml

from sae_jax.submit import gke
from sae_jax.submit import plan as plan_lib

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
BY_HAND = {
  "local.sh": "local.sh",
  "tpu_vm.sh": "tpu_vm.sh",
  "gke/tpu.yaml": "gke_tpu.yaml",
  "gke/gpu.yaml": "gke_gpu.yaml",
  "skypilot/train.yaml": "skypilot.yaml",
  "slurm/train.sbatch": "train.sbatch",
}
TPU = (
  *("gke", "/shared/run", "--image=R/sae-jax:tpu"),
  *("--accelerator=tpu-v6e-slice", "--topology=4x8"),
)
GPU = ("gke", "/shared/run", "--image=R/sae-jax:cuda", "--nodes=3", "--gpus=4")
SKY = ("skypilot", "/checkpoints/run", "--accelerators=H100:8")

# The fields of Kubernetes that the manifests rely on, with their types, by the
# API reference of batch/v1 Job and core/v1 Pod.
POD = {
  "restartPolicy": str,
  "terminationGracePeriodSeconds": int,
  "nodeSelector": {"*": str},
  "hostNetwork": bool,
  "dnsPolicy": str,
  "tolerations": [{"key": str, "operator": str, "value": str, "effect": str}],
  "containers": [
    {
      "name": str,
      "image": str,
      "command": [str],
      "args": [str],
      "env": [
        {"name": str, "valueFrom": {"fieldRef": {"fieldPath": str}}},
      ],
      "securityContext": {"runAsUser": int, "capabilities": {"add": [str]}},
      "resources": {"limits": {"*": int}},
      "volumeMounts": [{"name": str, "mountPath": str}],
    }
  ],
  "volumes": [
    {
      "name": str,
      "downwardAPI": {
        "items": [{"path": str, "fieldRef": {"fieldPath": str}}],
      },
      "persistentVolumeClaim": {"claimName": str},
      "emptyDir": {"medium": str},
    }
  ],
}
JOB = {
  "completions": int,
  "parallelism": int,
  "backoffLimit": int,
  "podFailurePolicy": {
    "rules": [
      {
        "action": str,
        "onExitCodes": {"containerName": str, "operator": str, "values": [int]},
        "onPodConditions": [{"type": str, "status": str}],
      }
    ]
  },
  "template": {"metadata": {"annotations": {"*": str}}, "spec": POD},
}
# https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/, of release 0.10.
JOBSET = {
  "apiVersion": str,
  "kind": str,
  "metadata": {"name": str, "labels": {"*": str}, "annotations": {"*": str}},
  "spec": {
    "failurePolicy": {
      "maxRestarts": int,
      "rules": [
        {
          "name": str,
          "action": str,
          "onJobFailureReasons": [str],
          "onJobFailureMessagePatterns": [str],
        }
      ],
    },
    "replicatedJobs": [
      {"name": str, "replicas": int, "template": {"spec": JOB}},
    ],
  },
}
# https://docs.skypilot.co/en/latest/reference/yaml-spec.html
TASK = {
  "name": str,
  "num_nodes": int,
  "workdir": str,
  "resources": {
    "accelerators": str,
    "infra": str,
    "use_spot": bool,
    "job_recovery": {
      "strategy": str,
      "recover_on_exit_codes": [int],
      "max_restarts_on_errors": int,
    },
  },
  "envs": {"*": str},
  "volumes": {"*": str},
  "file_mounts": {
    "/checkpoints": {"source": str, "store": str, "mode": str},
    "*": str,
  },
  "setup": str,
  "run": str,
}


def check(value, schema, where=""):
  """Every field is one that the table knows, of its type."""
  if isinstance(schema, dict):
    assert isinstance(value, dict), where
    for key, item in value.items():
      assert key in schema or "*" in schema, f"{where}.{key} is unknown"
      check(item, schema.get(key, schema.get("*")), f"{where}.{key}")
  elif isinstance(schema, list):
    assert isinstance(value, list), where
    for i, item in enumerate(value):
      check(item, schema[0], f"{where}[{i}]")
  else:
    assert type(value) is schema, f"{where} = {value!r}"


@pytest.fixture
def rendered(plan):
  return lambda *arguments: yaml.safe_load(plan(*arguments).document)


def job_of(jobset):
  return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod_of(jobset):
  return job_of(jobset)["template"]["spec"]


@pytest.fixture
def manifests(rendered):
  """Every kind of manifest, by hand and filled in."""
  shipped = [
    yaml.safe_load((LAUNCH / name).read_text())
    for name in BY_HAND
    if name.endswith(".yaml")
  ]
  return [
    *shipped,
    rendered(*TPU),
    rendered(*TPU, "--slices=2", "--queue=q", "--spot", "--namespace=n"),
    rendered(*GPU),
    rendered(*GPU, "--accelerator=nvidia-h100-80gb", "--queue=q", "--spot"),
    rendered(*SKY, "--bucket=s3://b", "--infra=aws"),
    rendered(*SKY, "--volume=v", "--nodes=2", "--spot=false"),
    rendered(*SKY[:2], "--accelerators=tpu-v6e-16", "--volume=v"),
  ]


def test_manifests_have_the_fields_of_the_engines(manifests):
  for manifest in manifests:
    check(manifest, JOBSET if "kind" in manifest else TASK)


def test_the_table_finds_a_wrong_field():
  for wrong in ({"apiVersions": "x"}, {"metadata": {"name": 1}}):
    with pytest.raises(AssertionError):
      check(wrong, JOBSET)


@pytest.mark.slow
def test_jobsets_are_valid_by_the_published_schema(manifests):
  """Of JobSet and the Kubernetes in it, as Kubeflow's package has them."""
  models = pytest.importorskip("kubeflow_trainer_api.models")
  for manifest in manifests:
    if "kind" in manifest:
      read = models.JobsetV1alpha2JobSet.from_dict(manifest)
      check_equal(manifest, read.to_dict())


@pytest.mark.slow
def test_jobs_are_valid_by_kubernetes_schema(manifests):
  validate = pytest.importorskip("kubernetes_validate").validate
  for manifest in manifests:
    if "kind" in manifest:
      template = manifest["spec"]["replicatedJobs"][0]["template"]
      job = {"apiVersion": "batch/v1", "kind": "Job", **template}
      validate(job, "1.34", strict=True)


def check_equal(value, read, where=""):
  """The schema's reader keeps every field: it drops what it does not know."""
  if isinstance(value, dict):
    for key, item in value.items():
      assert key in read, f"{where}.{key} is unknown"
      check_equal(item, read[key], f"{where}.{key}")
  elif isinstance(value, list):
    for i, (item, other) in enumerate(zip(value, read, strict=True)):
      check_equal(item, other, f"{where}[{i}]")
  else:
    assert value == read, where


@pytest.mark.slow
def test_tasks_are_valid_by_skypilots_schema(manifests):
  schemas = pytest.importorskip("sky.utils.schemas")
  import jsonschema

  for manifest in manifests:
    if "kind" not in manifest:
      jsonschema.validate(manifest, schemas.get_task_schema())
      jsonschema.validate(manifest["resources"], schemas.get_resources_schema())


def test_what_is_used_by_hand_is_what_is_submitted():
  for by_hand, template in BY_HAND.items():
    assert (LAUNCH / by_hand).samefile(plan_lib.TEMPLATES / template), by_hand


def test_the_manifest_carries_the_config_and_the_job(rendered, config):
  for arguments, distributed in (
    (TPU, ["--distributed"]),
    (GPU, [pod_of(rendered(*GPU))["containers"][0]["args"][-3]]),
  ):
    jobset = rendered(*arguments)
    container = pod_of(jobset)["containers"][0]
    job = job_of(jobset)
    annotations = job["template"]["metadata"]["annotations"]
    assert annotations["sae-jax/config"] == config.read_text()
    mounted = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert f"--config={mounted['config']}/config.py" in container["args"]
    assert container["args"][0] == "train"
    assert "--config.steps=8" in container["args"]
    assert set(distributed) <= set(container["args"])


def test_a_tpu_slice_has_a_pod_per_host(rendered):
  jobset = rendered(*TPU, "--slices=2", "--restarts=3")
  job, pod = job_of(jobset), pod_of(jobset)
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
  alone = rendered(*TPU[:3], "--accelerator=tpu-v6e-slice", "--topology=2x4")
  assert "--distributed" not in pod_of(alone)["containers"][0]["args"]
  args = pod_of(rendered(*GPU, "--nodes=1"))["containers"][0]["args"]
  assert not [w for w in args if "--process" in w or "--coordinator" in w]


def test_gpu_nodes_meet_at_the_first_pod(rendered):
  jobset = rendered(*GPU, "--name=mine")
  container = pod_of(jobset)["containers"][0]
  environment = {e["name"] for e in container["env"]}
  assert environment == {"JOBSET_NAME", "JOB_COMPLETION_INDEX"}
  # JobSet's names of pods: JOBSET-REPLICATEDJOB-0-0, in the subdomain JOBSET.
  name = jobset["spec"]["replicatedJobs"][0]["name"]
  assert container["args"][-3:] == [
    f"--coordinator=$(JOBSET_NAME)-{name}-0-0.$(JOBSET_NAME):8476",
    "--processes=3",
    "--process=$(JOB_COMPLETION_INDEX)",
  ]
  assert job_of(jobset)["completions"] == 3
  assert "nodeSelector" not in pod_of(jobset)


def test_queue_spot_and_volume_are_as_asked(rendered):
  plain = rendered(*GPU)
  assert "labels" not in plain["metadata"]
  jobset = rendered(
    *("gke", "/data/run", "--image=i", "--mount=/data", "--claim=mine"),
    *("--queue=team", "--spot", "--accelerator=nvidia-l4"),
  )
  assert jobset["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team"}
  pod = pod_of(jobset)
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
    rules = job_of(jobset)["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    codes = [rule.get("onExitCodes", {}).get("values") for rule in rules]
    assert codes == [[2], [75], None]
    assert rules[2]["onPodConditions"][0]["type"] == "DisruptionTarget"
    container = pod_of(jobset)["containers"][0]["name"]
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
    assert pod_of(jobset)["restartPolicy"] == "Never"
    assert job_of(jobset)["backoffLimit"] == 0


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
  task = rendered(*SKY, "--volume=v", "--nodes=2")
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
  tpu = rendered(*SKY[:2], "--accelerators=tpu-v6e-16", "--volume=v")
  assert run_of(tpu, tmp_path)[-2:] == [
    "--out=/checkpoints/run",
    "--distributed",
  ]


def test_a_jobs_words_arrive_as_they_were_given(plan, tmp_path):
  strange = ("--config.hook=a 'b' \"c\" $HOME $(X) \\", "--config.store=#: {}")
  jobset = yaml.safe_load(plan(*GPU, words=strange).document)
  args = pod_of(jobset)["containers"][0]["args"]
  # Of Kubernetes, $$( is $( and $( asks for a variable.
  assert args[3:5] == [w.replace("$(", "$$(") for w in strange]
  task = yaml.safe_load(plan(*SKY, "--volume=v", words=strange).document)
  said = run_of(task, tmp_path, SKYPILOT_NUM_NODES="1")
  assert said[3:5] == list(strange)


def test_a_sky_task_recovers_and_mounts_as_asked(rendered, config):
  task = rendered(*SKY, "--bucket=s3://b/c", "--restarts=7", "--infra=aws")
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
  task = rendered(*SKY, "--volume=v")
  assert task["volumes"] == {"/checkpoints": "v"}
  assert "/checkpoints" not in task["file_mounts"]


def test_sky_template_and_rendering_differ_only_in_the_job_line(rendered):
  shipped = plan_lib.manifest("skypilot.yaml")["run"].splitlines()
  filled = rendered(*SKY, "--volume=v")["run"].splitlines()
  assert filled[:-1] == shipped[:-2]
  assert shlex.split(filled[-1])[:3] == shlex.split(shipped[-1])[:3]


@pytest.mark.slow
def test_a_wheel_has_the_templates(tmp_path):
  """Links are no use where nothing else of the checkout is."""
  pytest.importorskip("setuptools", minversion="77")
  root, source = LAUNCH.parent, tmp_path / "source"
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
    for template in BY_HAND.values():
      expected = (plan_lib.TEMPLATES / template).read_bytes()
      assert packed.read(f"sae_jax/submit/templates/{template}") == expected
