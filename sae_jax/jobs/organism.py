# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax organism`: nothing in; a tiny two-persona model and its arms out."""

import sys
from typing import Any

import jax

from sae_jax import artifacts, metrics
from sae_jax import config as config_lib
from sae_jax.posttrain import organism

Config = organism.OrganismConfig


def run(config: Config, out: str) -> dict[str, Any]:
  """Makes, completes, or returns the result of the organism in `out`."""
  with artifacts.open_output(
    out, job="organism", config=config_lib.to_dict(config), inputs={}
  ) as output:
    if output.finished is not None:
      print(f"{output.path} is already made", file=sys.stderr)
      return output.finished["result"]
    progress = metrics.Progress(config.steps, "steps")
    found = organism.make(config, output.path, progress=progress.update)
    progress.close()
    result = {
      "organism": str(output.path),
      **{
        f"{name}/{key}": arm["others"][key]
        for name, arm in found["arms"].items()
        for key in ("p_correct", "p_wrong")
      },
    }
    output.finish(result, device=jax.devices()[0].device_kind)
  return result
