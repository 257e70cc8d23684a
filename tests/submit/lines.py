# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Lines of `sae-jax submit`, and where a rendered JobSet has what."""

import pathlib

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


def job_of(jobset):
  return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod_of(jobset):
  return job_of(jobset)["template"]["spec"]
