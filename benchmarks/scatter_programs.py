# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""The programs that `scatter.py` compiles, in a process that it starts."""

import pathlib
from typing import Any

import child
import hlo
import targets  # before jax: it sets what libtpu reads

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip
from jax import lax  # isort: skip
from jax.experimental import topologies  # isort: skip


def compile_and_read(
  case: dict[str, Any], directory: pathlib.Path
) -> list[dict[str, Any]]:
  """Compiles every way for the case's topology and says what it sends."""
  reason = targets.missing("tpu")
  if reason:
    raise SystemExit(reason)
  sizes = tuple(map(int, case["topology"].partition(":")[2].split("x")))
  names = ("x", "y", "z")[: len(sizes)]
  described = targets.devices("tpu", case["topology"])
  mesh = topologies.make_mesh(described, sizes, names)
  shape = (case["batch"], case["d_model"])

  def array(spec, rows):
    return jax.ShapeDtypeStruct(
      (rows, shape[1]), jnp.float32, sharding=jax.NamedSharding(mesh, spec)
    )

  results = []
  for way, program in _ways(names).items():
    compiled = (
      jax.jit(
        jax.shard_map(
          program,
          mesh=mesh,
          in_specs=(jax.P(names), jax.P()),
          out_specs=jax.P(),
          check_vma=False,
        )
      )
      .lower(
        array(jax.P(names), shape[0] * mesh.size), array(jax.P(), shape[0])
      )
      .compile()
    )
    text = child.newest_dump(directory, "after_optimizations.txt")
    exchanges = hlo.Program(text).collectives()
    results.append(
      {
        "way": way,
        "sent": sum(c.wire_bytes * c.visit.times for c in exchanges),
        "moved": compiled.cost_analysis()["bytes accessed"],
        "temporary": compiled.memory_analysis().temp_size_in_bytes,
        # Not the statistics' sums of a row or less.
        "collectives": [c.kind for c in exchanges if c.bytes > 1e6],
      }
    )
  return results


def _statistics(error_RD, x_RD):
  """The sums that the loss takes of its rows."""
  square = jnp.sum(jnp.sum(error_RD * error_RD, axis=1))
  return square, jnp.sum(error_RD, axis=0), jnp.sum(x_RD, axis=0)


def _ways(names):
  """What is done with a chip's part of x̂ [B, D], and x [B, D]."""

  def all_reduce(part_BD, x_BD):
    error_BD = lax.psum(part_BD, names) - x_BD
    return error_BD, *_statistics(error_BD, x_BD)

  def scatter(stages, dtype=jnp.float32):
    """One scatter for each of `stages`, and gathers in the other order."""

    def run(part_BD, x_BD):
      mine_RD = part_BD
      for stage in stages:
        mine_RD = lax.psum_scatter(mine_RD, stage, tiled=True)
      rows = mine_RD.shape[0]
      first = lax.axis_index(names) * rows
      x_RD = lax.dynamic_slice_in_dim(x_BD, first, rows)
      error_RD = mine_RD - x_RD
      sums = lax.psum(_statistics(error_RD, x_RD), names)
      error_BD = error_RD.astype(dtype)
      for stage in reversed(stages):
        error_BD = lax.all_gather(error_BD, stage, tiled=True)
      return error_BD.astype(jnp.float32), *sums

    return run

  return {
    "all-reduce": all_reduce,
    "scatter and gather over all chips": scatter([names]),
    "over one axis after another": scatter(names),
    "so, gathered in bfloat16": scatter(names, jnp.bfloat16),
  }
