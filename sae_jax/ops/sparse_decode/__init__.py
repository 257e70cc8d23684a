# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Weighted sums of the decoder rows that each batch row selects."""
