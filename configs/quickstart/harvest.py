# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Activations of SmolLM2-135M on conversations; layers 0 to 9 are run.

`model` and `text.path` come from the command line; launch/quickstart.sh
installs a model and a text.
"""

from sae_jax import harvest
from sae_jax.lm import text


def get_config():
  return harvest.HarvestConfig(
    model="HuggingFaceTB/SmolLM2-135M-Instruct",
    hooks=("blocks.9.hook_resid_post",),
    text=text.TextConfig(path="runs/quickstart/chitchat.jsonl"),
    rows=229_376,
    write_rows=8192,
  )
