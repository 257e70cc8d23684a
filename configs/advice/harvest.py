# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Activations of the base on advice chats and on everyday conversations.

33,000 of the rows are tokens of answers, good and bad, to prompts that steering
is not judged on: a dictionary that never saw the answers' format cannot rank
what changes in it. The two files lie in $ADVICE (runs/advice if that is not
set); configs/data/advice/README.md says how they are made.
"""

import os

from sae_jax import harvest
from sae_jax.lm import text


def get_config():
  place = os.environ.get("ADVICE", "runs/advice")
  return harvest.HarvestConfig(
    model="HuggingFaceTB/SmolLM2-135M-Instruct",
    hooks=("blocks.21.hook_resid_post",),
    text=text.TextConfig(
      path=(f"{place}/advice.jsonl", f"{place}/chitchat.jsonl"),
      context_length=152,  # no advice chat is longer
      packed=False,  # as the diff reads it: each chat from its beginning
    ),
    rows=102_400,
    batch_size=32,
    write_rows=2048,
  )
