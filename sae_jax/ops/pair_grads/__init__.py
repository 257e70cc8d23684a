# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Weight gradients from (row, latent) pairs."""
