# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Store to shuffled, re-batched, sharded device batches (grain)."""

from sae_jax.stream.batches import Stream, open_stream
from sae_jax.stream.order import StreamConfig

__all__ = ["Stream", "StreamConfig", "open_stream"]
