# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The mesh most tests need."""

import pytest

from sae_jax import mesh


@pytest.fixture
def small_mesh():
  return mesh.single()
