# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""How good a dictionary is: reconstruction, firing, the LM's loss."""

from sae_jax.evaluate.evaluation import EvaluateConfig, Evaluation, evaluate

__all__ = ["EvaluateConfig", "Evaluation", "evaluate"]
