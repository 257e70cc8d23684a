# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Suspect latents over series of checkpoints: alarms, detectors, screening."""
