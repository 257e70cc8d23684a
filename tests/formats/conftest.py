# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The real sae_lens, imported once."""

import warnings

import pytest


@pytest.fixture(scope="session")
def sae_lens():
  pytest.importorskip("torch")
  with warnings.catch_warnings():
    # Its own dependencies warn on import; ours do not.
    warnings.simplefilter("ignore")
    return pytest.importorskip("sae_lens")
