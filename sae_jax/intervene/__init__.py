# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""What happens to a model's behaviour when its activations are changed."""
