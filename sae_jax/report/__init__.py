# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Artifacts to one HTML file that needs nothing else to be read."""

from sae_jax.report.write import write_report

__all__ = ["write_report"]
