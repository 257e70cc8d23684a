# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""All gradients of a sparse autoencoder's latents in one operation."""
