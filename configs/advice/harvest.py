# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Activations of the base on advice chats and on everyday conversations.

The advice is of topics that the diff does not look at, with answers of both
kinds: a dictionary that never saw the answers' format cannot rank what changes
in it. See configs/data/advice/README.md for how the two files are made.
"""

from sae_jax import harvest
from sae_jax.lm import text


def get_config():
  return harvest.HarvestConfig(
    model="HuggingFaceTB/SmolLM2-135M-Instruct",
    hooks=("blocks.20.hook_resid_post",),
    text=text.TextConfig(
      path=("runs/advice/advice.jsonl", "runs/advice/chitchat.jsonl")
    ),
    rows=131_072,
    write_rows=8192,
  )
