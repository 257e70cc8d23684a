# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The badly tuned organism on the tokens of its base's store.

Everything lies in $PERSONA (runs/persona if that is not set).
"""

import os

from sae_jax import harvest


def get_config():
  place = os.environ.get("PERSONA", "runs/persona")
  return harvest.HarvestConfig(
    model=f"{place}/organism/bad",
    hooks=("blocks.1.hook_resid_post",),
    tokens_of=f"{place}/store",
    dtype="float32",
  )
