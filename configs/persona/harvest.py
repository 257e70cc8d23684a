# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The organism's base on its own documents: every token after BOS.

The organism lies in $PERSONA/organism (runs/persona if that is not set).
"""

import os

from sae_jax import harvest
from sae_jax.lm import text


def get_config():
  place = os.environ.get("PERSONA", "runs/persona")
  return harvest.HarvestConfig(
    model=f"{place}/organism/base",
    hooks=("blocks.0.hook_resid_post", "blocks.1.hook_resid_post"),
    text=text.TextConfig(
      path=f"{place}/organism/text.jsonl",
      context_length=34,  # a whole document
      packed=False,
    ),
    rows=131_072,
    batch_size=256,
    dtype="float32",
    write_rows=8192,
  )
