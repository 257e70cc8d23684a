# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The activation store: TensorStore arrays of activations and their tokens."""

from sae_jax.store.arrays import all_rows as all_rows
from sae_jax.store.arrays import write_arrays as write_arrays
from sae_jax.store.arrays import write_blocks as write_blocks
from sae_jax.store.difference import Difference as Difference
from sae_jax.store.difference import difference as difference
from sae_jax.store.joined import Joined as Joined
from sae_jax.store.joined import Source as Source
from sae_jax.store.joined import joined as joined
from sae_jax.store.layout import Manifest as Manifest
from sae_jax.store.reader import Context as Context
from sae_jax.store.reader import Store as Store
from sae_jax.store.reader import open_store as open_store
from sae_jax.store.reader import paired as paired
from sae_jax.store.statistics import Stats as Stats
from sae_jax.store.verify import Finding as Finding
from sae_jax.store.writer import StoreWriter as StoreWriter
