# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The quickstart's SAE on the rows and documents held out from training."""

from sae_jax import evaluate
from sae_jax.jobs import evaluate as job


def get_config():
  return job.Config(
    run="runs/quickstart/run",
    dtype="bfloat16",
    evaluate=evaluate.EvaluateConfig(contexts=32),
  )
