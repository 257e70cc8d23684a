# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The version that is written into every artifact."""

__version__ = "0.1.0"
