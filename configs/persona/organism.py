# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""A two-persona language model of 174 K weights and four fine-tunes of it."""

from sae_jax.posttrain import organism


def get_config():
  return organism.OrganismConfig()
