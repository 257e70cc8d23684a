# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of language models: the arms that a diff compares."""

from sae_jax.posttrain.config import LoraConfig, PosttrainConfig, SftConfig
from sae_jax.posttrain.data import Example
from sae_jax.posttrain.sft import finetune

__all__ = ["Example", "LoraConfig", "PosttrainConfig", "SftConfig", "finetune"]
