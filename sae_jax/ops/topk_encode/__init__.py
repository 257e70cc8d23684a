# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The K largest pre-activations of every row."""
