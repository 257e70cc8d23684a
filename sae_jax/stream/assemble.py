# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Host rows of lanes to global arrays on the mesh, without a joined copy."""

from collections.abc import Callable

import jax
import ml_dtypes
import numpy as np

Batch = jax.Array | tuple[jax.Array, ...]
# Rows over all devices; those of a data shard are next to one another.
EVERY_AXIS = ("data", "sae", "latent")


def rows_by_process(
  sharding: jax.NamedSharding, batch_size: int
) -> dict[int, list[tuple[int, int]]]:
  """The rows of a batch, (start, stop), that each process's devices hold."""
  rows: dict[int, list[tuple[int, int]]] = {}
  for device, index in sharding.devices_indices_map((batch_size, 1)).items():
    start, stop, _ = index[0].indices(batch_size)
    rows.setdefault(device.process_index, []).append((start, stop))
  return rows


def batch(
  parts: tuple[tuple[np.ndarray, ...], ...],
  *,
  single: bool,
  lanes: tuple[int, ...],
  sharding: jax.NamedSharding,
  batch_size: int,
) -> Batch:
  """This process's parts of a batch, by lane and hook, to arrays x_BD.

  A tuple of one array for every hook; with `single`, the only one itself.
  """
  arrays = tuple(
    _array(dict(zip(lanes, of_hook, strict=True)), sharding, batch_size)
    for of_hook in zip(*parts, strict=True)
  )
  return arrays[0] if single else arrays


def spreader(sharding: jax.NamedSharding) -> Callable[[Batch], Batch]:
  """`spread(batch)`: rows on all devices of their data shard, by all-gather."""
  spread = jax.NamedSharding(sharding.mesh, jax.P("data", None))
  if sharding.is_equivalent_to(spread, 2):
    return lambda batch: batch
  return jax.jit(lambda batch: batch, out_shardings=spread)


def _array(part_of, sharding, batch_size):
  lane_rows, width = next(iter(part_of.values())).shape

  def rows(index):
    start, stop, _ = index[0].indices(batch_size)
    pieces = [
      part_of[lane][max(start - lane * lane_rows, 0) : stop - lane * lane_rows]
      for lane in range(start // lane_rows, -(-stop // lane_rows))
    ]
    joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return joined.view(ml_dtypes.bfloat16)

  return jax.make_array_from_callback((batch_size, width), sharding, rows)
