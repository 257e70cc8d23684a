# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Sparse autoencoders on JAX: train them at scale, diff models with them."""

from sae_jax.version import __version__ as __version__
