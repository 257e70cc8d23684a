# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Model diffing: which latents changed between a base and tuned models."""
