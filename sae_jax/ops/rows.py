# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a function over chunks of rows, so that its temporaries stay small.

Any number of rows: full chunks go through one compiled loop body, what is
left over through a second one.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def _split(arrays, chunk: int):
  count = jax.tree.leaves(arrays)[0].shape[0]
  full = count // chunk
  body = jax.tree.map(
    lambda a: a[: full * chunk].reshape(full, chunk, *a.shape[1:]), arrays
  )
  rest = jax.tree.map(lambda a: a[full * chunk :], arrays)
  return full, body, rest, count % chunk


def map_chunks(f: Callable[..., Any], chunk: int, *arrays: jax.Array) -> Any:
  """Concatenated `f(*rows)` over chunks of at most `chunk` leading rows."""
  if arrays[0].shape[0] <= chunk:
    return f(*arrays)
  full, body, rest, left = _split(arrays, chunk)
  out = lax.map(lambda chunk_arrays: f(*chunk_arrays), body)
  out = jax.tree.map(
    lambda a: a.reshape(full * chunk, *a.shape[2:]),
    out,
  )
  if not left:
    return out
  return jax.tree.map(lambda a, b: lax.concatenate([a, b], 0), out, f(*rest))


def fold_chunks(
  f: Callable[..., Any], carry: Any, chunk: int, *arrays: jax.Array
) -> Any:
  """Folds `carry = f(carry, *rows)` over chunks of rows, in order."""
  if arrays[0].shape[0] <= chunk:
    return f(carry, *arrays)
  _, body, rest, left = _split(arrays, chunk)
  carry, _ = lax.scan(lambda c, a: (f(c, *a), None), carry, body)
  return f(carry, *rest) if left else carry


def scan_chunks(
  f: Callable[..., tuple[Any, Any]],
  carry: Any,
  chunk: int,
  *arrays: jax.Array,
) -> tuple[Any, Any]:
  """`carry, out = f(carry, *rows)` over chunks in order; outs concatenated."""
  if arrays[0].shape[0] <= chunk:
    return f(carry, *arrays)
  full, body, rest, left = _split(arrays, chunk)
  carry, out = lax.scan(lambda c, a: f(c, *a), carry, body)
  out = jax.tree.map(lambda a: a.reshape(full * chunk, *a.shape[2:]), out)
  if not left:
    return carry, out
  carry, last = f(carry, *rest)
  return carry, jax.tree.map(lambda a, b: lax.concatenate([a, b], 0), out, last)
