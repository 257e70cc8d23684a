# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax diff`: a base, its arms and an SAE in; which latents changed out."""

import sys
from typing import Any

import jax

from sae_jax import artifacts, mesh
from sae_jax import config as config_lib
from sae_jax.diff import config as diff_config
from sae_jax.diff import job

Config = diff_config.DiffConfig


def run(config: Config, out: str) -> dict[str, Any]:
  """Writes the diff into `out`; see `diff.job.run`."""
  mesh.refuse_processes("diff")
  dictionary = job.load_dictionary(config)
  with artifacts.open_output(
    out,
    job="diff",
    config=config_lib.to_dict(config),
    inputs=job.inputs(config, dictionary),
    # An endpoint that failed may be mended; labels change no number.
    may_change=("mesh", "cards.labels"),
  ) as output:
    if output.finished is not None:
      print(f"{output.path} is already compared", file=sys.stderr)
      return output.finished["result"]
    result = job.run(config, dictionary, output)
    output.finish(result, device=jax.devices()[0].device_kind)
  return result
