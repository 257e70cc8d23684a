# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""One thin file per job: its config and `run`; the logic lies below."""
