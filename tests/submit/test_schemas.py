# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether the engines take the manifests, by their schemas."""

import pytest

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
