# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Text and a language model to an activation store."""

from sae_jax.harvest.config import HarvestConfig as HarvestConfig
from sae_jax.harvest.job import harvest as harvest
