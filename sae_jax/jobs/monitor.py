# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax monitor`: checkpoints and suspects in; alarms and detectors out."""

import sys
from typing import Any

import jax

from sae_jax import artifacts, mesh
from sae_jax import config as config_lib
from sae_jax.monitor import config as monitor_config
from sae_jax.monitor import job, plan

Config = monitor_config.MonitorConfig


def run(config: Config, out: str) -> dict[str, Any]:
  """Writes the monitor into `out`; see `monitor.job.run`."""
  mesh.refuse_processes("monitor")
  groups = plan.make(config)
  with artifacts.open_output(
    out,
    job="monitor",
    config=config_lib.to_dict(config),
    inputs=plan.inputs(config, groups),
    may_change=("mesh",),
  ) as output:
    if output.finished is not None:
      print(f"{output.path} is already watched", file=sys.stderr)
      return output.finished["result"]
    result = job.run(config, groups, output)
    output.finish(result, device=jax.devices()[0].device_kind)
  return result
