# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""`sae-jax train`: a store in; checkpoints, metrics and `sae/` out."""

import sys
from typing import Any

import jax

from sae_jax import artifacts
from sae_jax import config as config_lib
from sae_jax.formats import saelens
from sae_jax.train import config as train_config
from sae_jax.train import loop, start

Config = train_config.TrainConfig


def run(config: Config, out: str) -> dict[str, Any]:
  """Trains, resumes, or returns the result of the finished run in `out`."""
  source = start.open_source(config)
  with artifacts.open_output(
    out,
    job="train",
    config=config_lib.to_dict(config),
    inputs=start.inputs(config, source),
    may_change=train_config.MAY_CHANGE,
    lead=jax.process_index() == 0,
  ) as output:
    if output.finished is not None:
      print(f"{output.path} is already trained", file=sys.stderr)
      return output.finished["result"]
    metrics = loop.train(config, source, output.path)
    place = output.path / "sae"
    for found in metrics.get("members", ()):
      own = place / str(found["member"])
      found["sae"] = str(own) if saelens.matches(own) else None
    result = {
      "run": str(output.path),
      **({} if config.sweep else {"sae": str(place)}),
      "steps": config.steps,
      "tokens": config.steps * config.stream.batch_size,
      **metrics,
    }
    output.finish(result, device=jax.devices()[0].device_kind)
  return result
