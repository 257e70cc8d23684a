# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How a model behaves, as numbers that say how sure they are."""

from sae_jax.judge.config import JudgeConfig, PromptsConfig

__all__ = ["JudgeConfig", "PromptsConfig"]
