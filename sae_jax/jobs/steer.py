# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax steer`: models, an SAE and its diff in; what the latents do out."""

import sys
from typing import Any

import jax

from sae_jax import artifacts, mesh
from sae_jax import config as config_lib
from sae_jax.intervene import config as intervene_config
from sae_jax.intervene import job

Config = intervene_config.SteerConfig


def run(config: Config, out: str) -> dict[str, Any]:
  """Writes the screen into `out`; see `intervene.job.run`."""
  mesh.refuse_processes("steer")
  with artifacts.open_output(
    out,
    job="steer",
    config=config_lib.to_dict(config),
    inputs=job.inputs(config),
    may_change=("mesh",),
  ) as output:
    if output.finished is not None:
      print(f"{output.path} is already screened", file=sys.stderr)
      return output.finished["result"]
    result = job.run(config, output)
    output.finish(result, device=jax.devices()[0].device_kind)
  return result
