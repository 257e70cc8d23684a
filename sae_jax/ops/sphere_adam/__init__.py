# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Adam for rows that stay on the unit sphere, in one pass."""
